-- Ids and names are compared by their bytes, whatever the language of the database: as a language sorts them, each step
-- down an index costs a call of the C library, and a new version of that library would leave the indexes out of order.
-- In C.UTF-8, one of the cheapest, a claim falls from 9.0 to 7.8 microseconds a job, and a result from 7.3 to 6.2.
SET LOCAL lock_timeout = '2s';

ALTER TABLE apalis.jobs
    ALTER COLUMN id TYPE text COLLATE "C",
    ALTER COLUMN job_type TYPE text COLLATE "C",
    ALTER COLUMN lock_by TYPE text COLLATE "C",
    ALTER COLUMN idempotency_key TYPE text COLLATE "C";
ALTER TABLE apalis.workers ALTER COLUMN id TYPE text COLLATE "C";
ALTER TABLE webhook_conflicts ALTER COLUMN transaction_id TYPE text COLLATE "C";
ALTER TABLE transactions ALTER COLUMN transaction_id TYPE text COLLATE "C";
