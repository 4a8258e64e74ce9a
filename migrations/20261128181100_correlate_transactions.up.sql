-- The request that a transaction came with: its X-Correlation-Id, and the id of its W3C trace if it had one. NULL for
-- transactions of the release before.
SET LOCAL lock_timeout = '2s';
ALTER TABLE transactions ADD COLUMN correlation_id text COLLATE "C", ADD COLUMN trace_id uuid;
