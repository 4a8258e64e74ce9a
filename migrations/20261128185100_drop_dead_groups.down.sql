SET LOCAL lock_timeout = '2s';
CREATE INDEX jobs_dead_groups ON apalis.jobs (job_type, coalesce(error_group, ''), id) WHERE status = 'Killed';
