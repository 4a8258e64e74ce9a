-- What happened in each queue, by process and minute. Rates, latencies and estimates come from here, never from a count of
-- jobs. A process adds its counts with a heartbeat, in one row of its own, so no row is contended. Kept for 14 days.
SET LOCAL lock_timeout = '2s';
CREATE TABLE queue_minutes (
    queue     text NOT NULL,
    minute    timestamptz NOT NULL,
    process   text NOT NULL,
    enqueued  bigint NOT NULL,
    started   bigint NOT NULL,
    done      bigint NOT NULL,
    retried   bigint NOT NULL,
    snoozed   bigint NOT NULL,
    dead      bigint NOT NULL,
    cancelled bigint NOT NULL,
    rescued   bigint NOT NULL,
    fenced    bigint NOT NULL,
    run_us    bigint NOT NULL,   -- the time of all runs that ended, in microseconds
    waits     bigint[] NOT NULL, -- runs by the time from due to start; the buckets are those of crates/queue/src/counts.rs
    runs      bigint[] NOT NULL, -- runs by their duration, in the same buckets
    PRIMARY KEY (queue, minute, process)
);
