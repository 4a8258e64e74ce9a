-- When workers of another release started, for the charts of the queues: a change of a rate often begins with a release. A
-- worker adds a row at its start if the newest row has another version.
SET LOCAL lock_timeout = '2s';
CREATE TABLE worker_releases (
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    version text NOT NULL, -- with the commit, if it is known
    PRIMARY KEY (at, version)
);
