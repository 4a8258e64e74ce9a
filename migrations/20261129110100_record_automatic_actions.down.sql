-- The previous release knows no actions of workers. They become actions of the command line; the actor still says who it was.
SET LOCAL lock_timeout = '2s';
UPDATE operator_actions SET via = 'cli' WHERE via = 'worker';
ALTER TABLE operator_actions
    DROP CONSTRAINT operator_actions_via_known,
    ADD CONSTRAINT operator_actions_via_known CHECK (via IN ('board', 'http', 'cli'));
