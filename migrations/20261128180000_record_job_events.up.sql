-- What happened to a job and nothing else keeps: snoozes, runs that were given back, replays of many dead letters. Its
-- failures and crashes stay in `errors`, its present state in the other columns. NULL for a job that ended in its first
-- run: both columns cost it nothing. `replays` counts how often operators replayed it; NULL for never.
SET LOCAL lock_timeout = '2s';
ALTER TABLE apalis.jobs ADD COLUMN events jsonb, ADD COLUMN replays integer;
