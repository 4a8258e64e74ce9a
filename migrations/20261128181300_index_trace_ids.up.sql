-- no-transaction
-- Operators look transactions up by the id of a trace. Without traces it stays empty.
CREATE INDEX CONCURRENTLY transactions_trace ON transactions (trace_id) WHERE trace_id IS NOT NULL;
