-- Replays of many dead letters. A replay is a job of the queue itself, so it survives every restart; this is its progress.
SET LOCAL lock_timeout = '2s';
CREATE TABLE replays (
    id             uuid PRIMARY KEY,
    queue          text NOT NULL,
    error_group    text,                      -- only this group of errors
    error          text,                      -- only jobs whose last error contains this text
    died_before    timestamptz NOT NULL DEFAULT clock_timestamp(), -- a job that dies later is not taken
    rate           double precision NOT NULL, -- jobs per second
    canary         bigint NOT NULL,           -- so many jobs go first, and must end before the others start
    stop_if_dead   double precision NOT NULL, -- the share of its jobs that may die again
    max_jobs       bigint NOT NULL,
    state          text NOT NULL DEFAULT 'running',
    stopped_because text,
    replayed       bigint NOT NULL DEFAULT 0,
    skipped        bigint NOT NULL DEFAULT 0, -- such as jobs whose key another job has taken
    last_id        text NOT NULL COLLATE "C" DEFAULT '', -- every dead letter up to this id was looked at
    next_at        timestamptz NOT NULL DEFAULT clock_timestamp(), -- when the next job is due, by the rate
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at       timestamptz,
    CONSTRAINT replays_state_known CHECK (state IN ('running', 'paused', 'stopped', 'done')),
    CONSTRAINT replays_rate_positive CHECK (rate > 0),
    CONSTRAINT replays_share CHECK (stop_if_dead BETWEEN 0 AND 1),
    CONSTRAINT replays_counts_not_negative CHECK (replayed >= 0 AND skipped >= 0 AND canary >= 0 AND max_jobs > 0)
);

-- The jobs that a replay has made wait again: how many died again is read by their ids.
CREATE TABLE replayed_jobs (
    replay uuid NOT NULL REFERENCES replays ON DELETE CASCADE,
    number bigint NOT NULL,
    job    text NOT NULL COLLATE "C",
    PRIMARY KEY (replay, number)
);
