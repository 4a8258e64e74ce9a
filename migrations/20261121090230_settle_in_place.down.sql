SET LOCAL lock_timeout = '2s';
DROP INDEX transactions_failed;
CREATE INDEX transactions_newest ON transactions (status, created_at DESC, transaction_id DESC);
ALTER TABLE transactions RESET (fillfactor);
ALTER TABLE apalis.jobs RESET (fillfactor);
