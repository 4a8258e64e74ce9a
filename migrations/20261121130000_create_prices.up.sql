SET LOCAL lock_timeout = '2s';

-- What happened to an asset in each finished bucket, by each source: the source of truth, whatever caches say.
CREATE TABLE prices (
    asset       text NOT NULL,
    currency    text NOT NULL,
    interval    text NOT NULL,
    bucket      timestamptz NOT NULL,       -- its start, in UTC
    source      text NOT NULL,
    open        numeric,
    high        numeric,
    low         numeric,
    close       numeric NOT NULL,
    volume      numeric,
    volume_unit text,
    fetched_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (asset, currency, interval, bucket, source),
    CONSTRAINT prices_interval_known CHECK (interval IN ('daily', 'hourly')),
    CONSTRAINT prices_source_known CHECK (source IN ('coingecko', 'kraken', 'coinbase', 'binance')),
    CONSTRAINT prices_positive CHECK (close > 0 AND close <> 'NaN' AND close < 'Infinity'),
    CONSTRAINT prices_low_is_lowest CHECK (low <= least(open, close) AND low > 0),
    CONSTRAINT prices_high_is_highest CHECK (high >= greatest(open, close)),
    CONSTRAINT prices_whole_candles CHECK ((open IS NULL) = (high IS NULL) AND (open IS NULL) = (low IS NULL)),
    CONSTRAINT prices_volume_not_negative CHECK (volume >= 0 AND volume_unit IN ('base', 'quote')),
    CONSTRAINT prices_volume_has_a_unit CHECK ((volume IS NULL) = (volume_unit IS NULL)),
    CONSTRAINT prices_bucket_aligned CHECK (
        bucket = date_trunc(CASE interval WHEN 'daily' THEN 'day' ELSE 'hour' END, bucket, 'UTC'))
);

-- The latest price of each asset by each source.
CREATE TABLE spot_prices (
    asset      text NOT NULL,
    currency   text NOT NULL,
    source     text NOT NULL,
    price      numeric NOT NULL,
    as_of      timestamptz NOT NULL,        -- by the source
    fetched_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (asset, currency, source),
    CONSTRAINT spot_prices_source_known CHECK (source IN ('coingecko', 'kraken', 'coinbase', 'binance')),
    CONSTRAINT spot_prices_positive CHECK (price > 0 AND price <> 'NaN' AND price < 'Infinity')
) WITH (fillfactor = 70); -- rows are replaced in place
