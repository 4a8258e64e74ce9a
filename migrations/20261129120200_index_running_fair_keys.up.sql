-- no-transaction
-- A limit for each key counts the running jobs of the key. So a crash leaves nothing behind: a rescued job no longer counts.
CREATE INDEX CONCURRENTLY jobs_running_by_key ON apalis.jobs (job_type, fair_key)
    WHERE status = 'Running' AND fair_key IS NOT NULL;
