SET LOCAL lock_timeout = '2s';
ALTER TABLE transactions DROP COLUMN correlation_id, DROP COLUMN trace_id;
