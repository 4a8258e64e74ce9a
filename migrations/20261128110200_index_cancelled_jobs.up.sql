-- no-transaction
-- Cancelled jobs are listed by queue, newest first. Only a job that is cancelled pays for this.
CREATE INDEX CONCURRENTLY jobs_cancelled ON apalis.jobs (job_type, id) WHERE status = 'Cancelled';
