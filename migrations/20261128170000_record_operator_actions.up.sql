-- What operators did: who, when, through which interface, to which jobs, and why. Nothing deletes these rows.
SET LOCAL lock_timeout = '2s';
CREATE TABLE operator_actions (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor  text NOT NULL,
    via    text NOT NULL,
    action text NOT NULL,  -- a verb: pause, resume, cancel, replay, discard, drain, fire, open
    target text NOT NULL,  -- the queue, job, worker or schedule
    filter jsonb,          -- which jobs of the queue; NULL for one target
    reason text NOT NULL,
    count  bigint NOT NULL, -- targets that were changed
    CONSTRAINT operator_actions_via_known CHECK (via IN ('board', 'http', 'cli')),
    CONSTRAINT operator_actions_count_not_negative CHECK (count >= 0)
);
-- The history of one target, newest first.
CREATE INDEX operator_actions_target ON operator_actions (target, id);

-- Who paused a queue, and when it resumes by itself; NULL for never.
ALTER TABLE queues ADD COLUMN paused_by text, ADD COLUMN resume_at timestamptz;

-- The queues that are paused now.
CREATE VIEW paused_queues AS
    SELECT name, paused_at, paused_by, reason, resume_at FROM queues
    WHERE paused_at IS NOT NULL AND (resume_at IS NULL OR resume_at > now());
