SET LOCAL lock_timeout = '2s';

-- What Kraken and Binance reported as present was stored as of the time of our clock, however old it was: a pair that
-- Binance has given up looked as new as any. Their own times take its place with the next call. Until then a price of the
-- other providers is shown, or the last close.
DELETE FROM spot_prices WHERE source IN ('kraken', 'binance');
