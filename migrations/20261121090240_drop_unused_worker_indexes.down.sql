SET LOCAL lock_timeout = '2s';
CREATE UNIQUE INDEX unique_worker_id ON apalis.workers (id);
CREATE INDEX lsidx ON apalis.workers (last_seen);
CREATE INDEX idx_apalis_workers_last_seen ON apalis.workers (last_seen);
CREATE INDEX wtidx ON apalis.workers (worker_type);
CREATE INDEX idx_apalis_workers_worker_type ON apalis.workers (worker_type);
