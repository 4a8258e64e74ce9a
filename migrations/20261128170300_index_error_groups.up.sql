-- no-transaction
-- The groups of a queue's dead letters are found by a skip scan, however many dead letters there are.
CREATE INDEX CONCURRENTLY jobs_dead_groups ON apalis.jobs (job_type, coalesce(error_group, ''), id) WHERE status = 'Killed';
