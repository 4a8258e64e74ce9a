SET LOCAL lock_timeout = '2s';
DROP INDEX transactions_trace;
