DROP INDEX apalis.idx_jobs_idempotency_key;
-- apalis' index knows no states: of the jobs that share a key, the last one keeps it.
UPDATE apalis.jobs AS job SET idempotency_key = NULL
    WHERE EXISTS (SELECT FROM apalis.jobs AS later WHERE later.job_type = job.job_type
                  AND later.idempotency_key = job.idempotency_key AND later.id > job.id);
CREATE UNIQUE INDEX idx_jobs_idempotency_key ON apalis.jobs (job_type, idempotency_key);
CREATE UNIQUE INDEX unique_job_id ON apalis.jobs (id);
DROP INDEX apalis.jobs_running;
CREATE INDEX lidx ON apalis.jobs (lock_by);
CREATE INDEX idx_apalis_jobs_lock_by ON apalis.jobs (lock_by);
DROP INDEX apalis.jobs_ready;
CREATE INDEX idx_apalis_jobs_fetch_partial ON apalis.jobs (job_type, priority DESC, run_at ASC)
    WHERE status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts);
ALTER TABLE apalis.jobs
    DROP CONSTRAINT jobs_priority_known,
    ALTER COLUMN priority DROP NOT NULL,
    DROP COLUMN failures,
    DROP COLUMN crashes,
    DROP COLUMN errors;
COMMENT ON COLUMN apalis.jobs.attempts IS NULL;
ALTER TABLE apalis.workers DROP COLUMN lease;
-- Rows whose worker is already forgotten would break the key.
UPDATE apalis.jobs SET lock_by = NULL
    WHERE lock_by IS NOT NULL AND NOT EXISTS (SELECT FROM apalis.workers w WHERE w.id = lock_by);
ALTER TABLE apalis.jobs ADD CONSTRAINT fk_worker_lock_by FOREIGN KEY (lock_by) REFERENCES apalis.workers (id);
CREATE TRIGGER notify_workers AFTER INSERT ON apalis.jobs FOR EACH ROW EXECUTE FUNCTION apalis.notify_new_jobs();
