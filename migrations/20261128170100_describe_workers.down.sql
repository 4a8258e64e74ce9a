SET LOCAL lock_timeout = '2s';
ALTER TABLE apalis.workers DROP COLUMN status, DROP COLUMN drain;
