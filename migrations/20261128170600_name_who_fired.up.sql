-- Who fired a schedule by hand and why, and the first and last job of a fire: their states show what came of it.
SET LOCAL lock_timeout = '2s';
ALTER TABLE schedule_fires
    ADD COLUMN actor text, ADD COLUMN reason text, ADD COLUMN first_job text, ADD COLUMN last_job text;
