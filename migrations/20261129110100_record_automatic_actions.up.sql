-- Workers record what they do by themselves like the action of an operator, such as disabling a destination of callbacks. The
-- rows are checked again, which takes milliseconds: there is one for each action of a person.
SET LOCAL lock_timeout = '2s';
ALTER TABLE operator_actions
    DROP CONSTRAINT operator_actions_via_known,
    ADD CONSTRAINT operator_actions_via_known CHECK (via IN ('board', 'http', 'cli', 'worker'));
