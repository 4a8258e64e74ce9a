-- A job that an operator cancelled has a state of its own: it is no dead letter, no replay by filter brings it back, and
-- no alert is about it. Processes of the release before go on: they make such a job a dead letter as before, and their
-- `jobs list` fails on one of this state.
SET LOCAL lock_timeout = '2s';

-- Cancelled jobs of this queue since its first one: what millrace_jobs_cancelled_total shows. Here and not in a process,
-- because `millrace jobs cancel` ends before anything reads its metrics.
ALTER TABLE queues ADD COLUMN cancelled bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT queues_cancelled_not_negative CHECK (cancelled >= 0);

-- Found by the index of dead letters.
UPDATE apalis.jobs SET status = 'Cancelled'
    WHERE status = 'Killed' AND errors -> -1 ->> 'error' = 'cancelled by operator';
