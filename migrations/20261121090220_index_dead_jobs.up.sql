-- Dead letters are listed and replayed by queue, newest first. Only a job that dies pays for this.
-- Not CONCURRENTLY: that waits for every snapshot, also for that of a second `millrace migrate`, which waits for us.
SET LOCAL lock_timeout = '2s';
CREATE INDEX jobs_dead ON apalis.jobs (job_type, id) WHERE status = 'Killed';
