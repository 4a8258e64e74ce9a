SET LOCAL lock_timeout = '2s';

ALTER TABLE apalis.jobs
    ALTER COLUMN id TYPE text COLLATE "default",
    ALTER COLUMN job_type TYPE text COLLATE "default",
    ALTER COLUMN lock_by TYPE text COLLATE "default",
    ALTER COLUMN idempotency_key TYPE text COLLATE "default";
ALTER TABLE apalis.workers ALTER COLUMN id TYPE text COLLATE "default";
ALTER TABLE webhook_conflicts ALTER COLUMN transaction_id TYPE text COLLATE "default";
ALTER TABLE transactions ALTER COLUMN transaction_id TYPE text COLLATE "default";
