SET LOCAL lock_timeout = '2s';
DROP INDEX apalis.jobs_running_by_key;
