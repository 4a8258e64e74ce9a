-- A replay that has sent its last job watches its jobs until they have ended. `skips` has the newest dead letters that it
-- could not replay, with the cause; `skipped` counts all of them.
SET LOCAL lock_timeout = '2s';
ALTER TABLE replays
    ADD COLUMN skips jsonb NOT NULL DEFAULT '[]',
    DROP CONSTRAINT replays_state_known,
    ADD CONSTRAINT replays_state_known CHECK (state IN ('running', 'paused', 'watching', 'stopped', 'done'));
