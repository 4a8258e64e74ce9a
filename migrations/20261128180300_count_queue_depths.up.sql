-- The number of waiting jobs of each queue when they were last counted, at most once a minute. A longer queue's number is
-- this count and what `queue_minutes` says has come and gone since. Counting 1,000,000 waiting jobs takes 0.15 to 0.9 s,
-- too much for every look at a queue.
SET LOCAL lock_timeout = '2s';
CREATE TABLE queue_depths (
    queue      text PRIMARY KEY,
    counted_at timestamptz NOT NULL,
    waiting    bigint NOT NULL,
    later      bigint NOT NULL, -- those of them that were not due yet
    before     bigint NOT NULL  -- what had come and gone in the minute of the count, before it
);
