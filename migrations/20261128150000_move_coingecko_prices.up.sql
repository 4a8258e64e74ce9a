SET LOCAL lock_timeout = '2s';

-- The price of a bucket is the one at its end. CoinGecko reports the price of a moment, and the price at 00:00 was stored
-- as that of the day which begins then. It is the last price of the day before; for hours likewise. So all rows of
-- CoinGecko move by one bucket.
--
-- A row that moves alone would collide with its neighbour, which has not moved yet: so all are taken out first. A day is
-- '24 hours', because a day of the session's time zone may have 23. Measured on two cores: 24 s for 1,000,000 rows of
-- CoinGecko, in a table with 250,000 more. Readers see the old prices until the commit. A process that stores prices meanwhile
-- gets an error after 5 s and tries again.
--
-- Stop the API and the workers of the release before first: they store what they fetch from CoinGecko a bucket too late.
LOCK TABLE prices IN SHARE ROW EXCLUSIVE MODE;

CREATE TEMPORARY TABLE moved_prices ON COMMIT DROP AS
SELECT asset, currency, interval, bucket, open, high, low, close, volume, volume_unit, fetched_at
FROM prices WHERE source = 'coingecko';

DELETE FROM prices WHERE source = 'coingecko';

INSERT INTO prices (asset, currency, interval, bucket, source, open, high, low, close, volume, volume_unit, fetched_at)
SELECT asset, currency, interval, bucket - CASE interval WHEN 'daily' THEN interval '24 hours' ELSE interval '1 hour' END,
       'coingecko', open, high, low, close, volume, volume_unit, fetched_at
FROM moved_prices ORDER BY asset, currency, interval, bucket;
