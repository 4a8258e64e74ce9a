SET LOCAL lock_timeout = '2s';
ALTER TABLE transactions DROP COLUMN sender;
