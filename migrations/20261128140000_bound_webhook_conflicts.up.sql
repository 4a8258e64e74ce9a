SET LOCAL lock_timeout = '2s';

-- How often a webhook contradicted what is recorded, with any payload. `webhook_conflicts` keeps only the first 20
-- different payloads of an id: without a bound, each new payload of a sender in a loop was one more row. Conflicts of one
-- id are written one batch after the other, under the lock of this row, so that the bound is exact.
CREATE TABLE webhook_conflict_totals (
    transaction_id text COLLATE "C" PRIMARY KEY REFERENCES transactions (transaction_id) ON DELETE CASCADE,
    times          bigint NOT NULL,
    first_at       timestamptz NOT NULL DEFAULT now(),
    last_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT webhook_conflict_totals_counted CHECK (times > 0)
) WITH (fillfactor = 50);                          -- the same few rows are updated again and again, in place

WITH numbered AS (
    SELECT transaction_id, digest, times, first_at, last_at,
           row_number() OVER (PARTITION BY transaction_id ORDER BY first_at, digest) AS place
    FROM webhook_conflicts),
totals AS (
    INSERT INTO webhook_conflict_totals (transaction_id, times, first_at, last_at)
    SELECT transaction_id, sum(times), min(first_at), max(last_at) FROM numbered GROUP BY transaction_id)
DELETE FROM webhook_conflicts AS kept USING numbered
WHERE numbered.place > 20 AND kept.transaction_id = numbered.transaction_id AND kept.digest = numbered.digest;
