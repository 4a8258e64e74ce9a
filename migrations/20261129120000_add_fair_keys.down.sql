SET LOCAL lock_timeout = '2s';
ALTER TABLE apalis.jobs DROP COLUMN fair_key;
