SET LOCAL lock_timeout = '2s';
ALTER TABLE schedule_fires DROP COLUMN actor, DROP COLUMN reason, DROP COLUMN first_job, DROP COLUMN last_job;
