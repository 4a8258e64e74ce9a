-- The sums of `queue_minutes` by hour. The cleaner moves minutes here after 14 days, and deletes hours after 400 days.
SET LOCAL lock_timeout = '2s';
CREATE TABLE queue_hours (
    queue     text NOT NULL,
    hour      timestamptz NOT NULL,
    enqueued  bigint NOT NULL,
    started   bigint NOT NULL,
    done      bigint NOT NULL,
    retried   bigint NOT NULL,
    snoozed   bigint NOT NULL,
    dead      bigint NOT NULL,
    cancelled bigint NOT NULL,
    rescued   bigint NOT NULL,
    fenced    bigint NOT NULL,
    run_us    bigint NOT NULL,
    waits     bigint[] NOT NULL,
    runs      bigint[] NOT NULL,
    PRIMARY KEY (queue, hour)
);
