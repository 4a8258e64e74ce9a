-- The hashes are lost.
SET LOCAL lock_timeout = '2s';
ALTER TABLE spot_prices DROP COLUMN body_sha256;
ALTER TABLE prices DROP COLUMN body_sha256;
