DROP INDEX apalis.jobs_dead_groups;
