SET LOCAL lock_timeout = '2s';

-- Each row of CoinGecko back to the bucket that begins with its price.
LOCK TABLE prices IN SHARE ROW EXCLUSIVE MODE;

CREATE TEMPORARY TABLE moved_prices ON COMMIT DROP AS
SELECT asset, currency, interval, bucket, open, high, low, close, volume, volume_unit, fetched_at
FROM prices WHERE source = 'coingecko';

DELETE FROM prices WHERE source = 'coingecko';

INSERT INTO prices (asset, currency, interval, bucket, source, open, high, low, close, volume, volume_unit, fetched_at)
SELECT asset, currency, interval, bucket + CASE interval WHEN 'daily' THEN interval '24 hours' ELSE interval '1 hour' END,
       'coingecko', open, high, low, close, volume, volume_unit, fetched_at
FROM moved_prices ORDER BY asset, currency, interval, bucket;
