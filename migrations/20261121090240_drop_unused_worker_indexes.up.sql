-- apalis indexes the few rows of this table six times: its primary key twice, and twice each what no statement of ours
-- looks for. Without an index on last_seen, a heartbeat is a HOT update.
SET LOCAL lock_timeout = '2s';
DROP INDEX IF EXISTS apalis.unique_worker_id;
DROP INDEX IF EXISTS apalis.lsidx;
DROP INDEX IF EXISTS apalis.idx_apalis_workers_last_seen;
DROP INDEX IF EXISTS apalis.wtidx;
DROP INDEX IF EXISTS apalis.idx_apalis_workers_worker_type;
