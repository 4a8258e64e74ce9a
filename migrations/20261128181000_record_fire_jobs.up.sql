-- What came of a fire: its jobs have ids from `first_job` to `last_job` and its correlation id, so their states are read from
-- a short range of the primary key of jobs. `fired_by` is the operator who fired by hand, or who skipped the fire before
-- its time. NULL for fires of the release before.
SET LOCAL lock_timeout = '2s';
ALTER TABLE schedule_fires
    ADD COLUMN fired_by  text,
    ADD COLUMN first_job text COLLATE "C",
    ADD COLUMN last_job  text COLLATE "C";
