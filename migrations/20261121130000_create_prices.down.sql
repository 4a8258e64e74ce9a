SET LOCAL lock_timeout = '2s';

DROP TABLE spot_prices;
DROP TABLE prices;
