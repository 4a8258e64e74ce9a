-- The number of waiting jobs of each queue: the last count, and what has come and gone since. A count of more than a day
-- ago says nothing.
SET LOCAL lock_timeout = '2s';
CREATE VIEW estimated_depths AS
    SELECT depth.queue, depth.waiting - depth.before + flow.since AS waiting, depth.later
    FROM queue_depths AS depth
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(enqueued + retried + snoozed + rescued - started), 0)::bigint AS since
        FROM queue_minutes WHERE queue = depth.queue AND minute >= date_trunc('minute', depth.counted_at)
    ) AS flow
    WHERE depth.counted_at > now() - interval '1 day';
