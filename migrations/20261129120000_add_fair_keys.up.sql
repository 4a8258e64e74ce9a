-- A hash of what the fair share of a queue counts by, such as the sender of a webhook; NULL if the job is not counted. Only jobs
-- with a key pay for it: the column is nullable, and both indexes are partial.
SET LOCAL lock_timeout = '2s';
ALTER TABLE apalis.jobs ADD COLUMN fair_key bigint;
