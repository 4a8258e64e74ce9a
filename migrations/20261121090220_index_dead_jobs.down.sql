DROP INDEX apalis.jobs_dead;
