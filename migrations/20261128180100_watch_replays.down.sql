-- A replay that watches its jobs counts as done, as in the release before.
SET LOCAL lock_timeout = '2s';
UPDATE replays SET state = 'done', ended_at = clock_timestamp() WHERE state = 'watching';
ALTER TABLE replays
    DROP COLUMN skips,
    DROP CONSTRAINT replays_state_known,
    ADD CONSTRAINT replays_state_known CHECK (state IN ('running', 'paused', 'stopped', 'done'));
