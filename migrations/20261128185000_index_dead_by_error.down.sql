DROP INDEX apalis.jobs_dead_by_error;
