-- jobs_dead_by_error has the same order.
SET LOCAL lock_timeout = '2s';
DROP INDEX apalis.jobs_dead_groups;
