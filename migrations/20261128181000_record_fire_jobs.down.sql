SET LOCAL lock_timeout = '2s';
ALTER TABLE schedule_fires DROP COLUMN fired_by, DROP COLUMN first_job, DROP COLUMN last_job;
