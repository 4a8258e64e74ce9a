-- What a worker reports with each heartbeat, for operators: host, process, version, slots and claims per queue, listener.
-- NULL for workers of the release before. `drain` is an operator's request: the worker reads it with its next heartbeat,
-- and stops as after SIGTERM.
SET LOCAL lock_timeout = '2s';
ALTER TABLE apalis.workers ADD COLUMN status jsonb, ADD COLUMN drain boolean NOT NULL DEFAULT false;
