SET LOCAL lock_timeout = '2s';
DROP INDEX apalis.jobs_ready_by_key;
