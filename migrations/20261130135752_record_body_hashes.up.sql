-- The SHA-256 of the response body that contained a price, so that a price can be compared with a recorded response, and all
-- prices of one wrong response can be found. NULL for prices that an earlier release stored. There is no default and no check,
-- so that no row is read or written: both tables are locked only for a moment. A price has 33 bytes more.
--
-- While processes of the previous release still run, one that stores a revised price leaves the hash of the price before it.
SET LOCAL lock_timeout = '2s';
ALTER TABLE prices ADD COLUMN body_sha256 bytea;
ALTER TABLE spot_prices ADD COLUMN body_sha256 bytea;
