//! The SQL of prices.

pub(super) mod fetches;

use bigdecimal::BigDecimal;
use time::OffsetDateTime;

use super::model::{AssetId, BodyHash, Candle, Currency, Point, ProviderId, Series, Spot};
use runtime::{
    db::Pool,
    error::Error,
    executor::{repeatable, transactional},
};

/// The number of rows that an upsert changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct UpsertCounts {
    /// New buckets.
    pub new: u64,
    /// Buckets that the provider has revised.
    pub revised: u64,
}

/// Upserts finished buckets of a provider, in one statement. An existing bucket is replaced when its values differ:
/// providers revise their latest buckets. With equal values it is not written, and keeps the hash and the time of the
/// response that it came from.
pub(super) async fn upsert_candles(
    pool: &Pool,
    series: &Series,
    provider: ProviderId,
    candles: &[Candle],
    fetched_at: OffsetDateTime,
) -> Result<UpsertCounts, Error> {
    let column =
        |value: fn(&Candle) -> Option<BigDecimal>| -> Vec<Option<BigDecimal>> { candles.iter().map(value).collect() };
    let volume_unit = |candle: &Candle| candle.volume.as_ref().map(|_| "base".to_owned());
    let row = sqlx::query!(
        r#"WITH written AS (
               INSERT INTO prices (asset, currency, interval, source, bucket, open, high, low, close, volume, volume_unit,
                                   body_sha256, fetched_at)
               SELECT $1, $2, $3, $4, given.*, $13
               FROM unnest($5::timestamptz[], $6::numeric[], $7::numeric[], $8::numeric[], $9::numeric[], $10::numeric[],
                           $11::text[], $12::bytea[])
                    AS given (bucket, open, high, low, close, volume, volume_unit, body_sha256)
               ORDER BY given.bucket
               ON CONFLICT (asset, currency, interval, bucket, source) DO UPDATE
               SET open = EXCLUDED.open, high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close,
                   volume = EXCLUDED.volume, volume_unit = EXCLUDED.volume_unit, body_sha256 = EXCLUDED.body_sha256,
                   fetched_at = EXCLUDED.fetched_at
               WHERE (prices.open, prices.high, prices.low, prices.close, prices.volume, prices.volume_unit)
                     IS DISTINCT FROM (EXCLUDED.open, EXCLUDED.high, EXCLUDED.low, EXCLUDED.close, EXCLUDED.volume,
                                       EXCLUDED.volume_unit)
               RETURNING xmax = 0 AS is_new)
           SELECT count(*) FILTER (WHERE is_new) AS "new!", count(*) FILTER (WHERE NOT is_new) AS "revised!"
           FROM written"#,
        series.asset.as_str(),
        series.currency.as_str(),
        series.interval.as_str(),
        provider.as_str(),
        &candles.iter().map(|candle| candle.bucket).collect::<Vec<_>>(),
        &column(|candle| candle.open.clone()) as &[Option<BigDecimal>],
        &column(|candle| candle.high.clone()) as &[Option<BigDecimal>],
        &column(|candle| candle.low.clone()) as &[Option<BigDecimal>],
        &candles.iter().map(|candle| candle.close.clone()).collect::<Vec<_>>(),
        &column(|candle| candle.volume.clone()) as &[Option<BigDecimal>],
        &candles.iter().map(volume_unit).collect::<Vec<_>>() as &[Option<String>],
        &candles.iter().map(|candle| candle.body_sha256).collect::<Vec<_>>() as &[Option<BodyHash>],
        fetched_at,
    )
    .fetch_one(transactional(pool))
    .await?;
    Ok(UpsertCounts { new: row.new.cast_unsigned(), revised: row.revised.cast_unsigned() })
}

/// The prices of the buckets that start at `from` or later and before `to`, in the order of time. Of each bucket the
/// price of the provider that comes first in `preferred`; other providers are ignored.
pub(super) async fn series(
    pool: &Pool,
    series: &Series,
    preferred: &[ProviderId],
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<Vec<Point>, Error> {
    let rows = sqlx::query!(
        r#"SELECT DISTINCT ON (bucket) bucket, close::text AS "close!", source, fetched_at FROM prices
           WHERE asset = $1 AND currency = $2 AND interval = $3 AND bucket >= $4 AND bucket < $5 AND source = ANY($6)
           ORDER BY bucket, array_position($6, source)"#,
        series.asset.as_str(),
        series.currency.as_str(),
        series.interval.as_str(),
        from,
        to,
        &texts(preferred),
    )
    .fetch_all(repeatable(pool))
    .await?;
    rows.into_iter()
        .map(|row| {
            parse_provider(&row.source)?;
            Ok(Point { bucket: row.bucket, price: parse_decimal(&row.close)? })
        })
        .collect()
}

/// The oldest bucket of a series, of these providers.
pub(super) async fn oldest(
    pool: &Pool,
    series: &Series,
    providers: &[ProviderId],
) -> Result<Option<OffsetDateTime>, Error> {
    let oldest = sqlx::query_scalar!(
        "SELECT bucket FROM prices WHERE asset = $1 AND currency = $2 AND interval = $3 AND source = ANY($4)
         ORDER BY bucket LIMIT 1",
        series.asset.as_str(),
        series.currency.as_str(),
        series.interval.as_str(),
        &texts(providers),
    );
    Ok(oldest.fetch_optional(repeatable(pool)).await?)
}

/// The latest close of each of these assets, of a day or an hour, as of the end of the bucket.
pub(super) async fn latest(
    pool: &Pool,
    assets: &[AssetId],
    currency: &Currency,
    preferred: &[ProviderId],
) -> Result<Vec<(AssetId, Spot)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT given.asset AS "asset!", last.close::text AS "close!", last.source AS "source!", last.ends AS "ends!"
           FROM unnest($1::text[]) AS given (asset)
           CROSS JOIN (VALUES ('daily', interval '24 hours'), ('hourly', interval '1 hour')) AS buckets (name, length)
           CROSS JOIN LATERAL (
               SELECT close, source, bucket + buckets.length AS ends FROM prices
               WHERE prices.asset = given.asset AND currency = $2 AND prices.interval = buckets.name AND source = ANY($3)
               ORDER BY bucket DESC, array_position($3, source) LIMIT 1) AS last"#,
        &texts(assets),
        currency.as_str(),
        &texts(preferred),
    )
    .fetch_all(repeatable(pool))
    .await?;
    rows.into_iter()
        .map(|row| {
            let (price, provider) = (parse_decimal(&row.close)?, parse_provider(&row.source)?);
            Ok((parse_asset(&row.asset)?, Spot { price, as_of: row.ends, provider, body_sha256: None }))
        })
        .collect()
}

/// The stored buckets of one provider, in the order of time.
pub(super) async fn buckets(
    pool: &Pool,
    series: &Series,
    provider: ProviderId,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<Vec<OffsetDateTime>, Error> {
    let buckets = sqlx::query_scalar!(
        "SELECT bucket FROM prices
         WHERE asset = $1 AND currency = $2 AND interval = $3 AND source = $4 AND bucket >= $5 AND bucket < $6
         ORDER BY bucket",
        series.asset.as_str(),
        series.currency.as_str(),
        series.interval.as_str(),
        provider.as_str(),
        from,
        to,
    );
    Ok(buckets.fetch_all(repeatable(pool)).await?)
}

/// Upserts present prices in one currency. An older price never replaces a newer one of the same provider.
pub(super) async fn upsert_spots(
    pool: &Pool,
    currency: &Currency,
    spots: &[(AssetId, Spot)],
    fetched_at: OffsetDateTime,
) -> Result<(), Error> {
    let column = |value: fn(&(AssetId, Spot)) -> String| -> Vec<String> { spots.iter().map(value).collect() };
    sqlx::query!(
        "INSERT INTO spot_prices (asset, currency, source, price, as_of, body_sha256, fetched_at)
         SELECT asset, $1, source, price, as_of, body_sha256, $7
         FROM unnest($2::text[], $3::text[], $4::numeric[], $5::timestamptz[], $6::bytea[])
              AS given (asset, source, price, as_of, body_sha256)
         ORDER BY asset, source
         ON CONFLICT (asset, currency, source) DO UPDATE
         SET price = EXCLUDED.price, as_of = EXCLUDED.as_of, body_sha256 = EXCLUDED.body_sha256,
             fetched_at = EXCLUDED.fetched_at
         WHERE spot_prices.as_of <= EXCLUDED.as_of",
        currency.as_str(),
        &column(|(asset, _)| asset.as_str().to_owned()),
        &column(|(_, spot)| spot.provider.as_str().to_owned()),
        &spots.iter().map(|(_, spot)| spot.price.clone()).collect::<Vec<_>>(),
        &spots.iter().map(|(_, spot)| spot.as_of).collect::<Vec<_>>(),
        &spots.iter().map(|(_, spot)| spot.body_sha256).collect::<Vec<_>>() as &[Option<BodyHash>],
        fetched_at,
    )
    .execute(repeatable(pool))
    .await?;
    Ok(())
}

/// The newest price of each of these assets in one currency by one of these providers, and when it was fetched.
pub(super) async fn spots(
    pool: &Pool,
    assets: &[AssetId],
    currency: &Currency,
    preferred: &[ProviderId],
) -> Result<Vec<(AssetId, Spot, OffsetDateTime)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT DISTINCT ON (asset) asset, price::text AS "price!", as_of, source, fetched_at FROM spot_prices
           WHERE asset = ANY($1) AND currency = $2 AND source = ANY($3)
           ORDER BY asset, as_of DESC, array_position($3, source)"#,
        &texts(assets),
        currency.as_str(),
        &texts(preferred),
    )
    .fetch_all(repeatable(pool))
    .await?;
    rows.into_iter()
        .map(|row| {
            let (price, provider) = (parse_decimal(&row.price)?, parse_provider(&row.source)?);
            let spot = Spot { price, as_of: row.as_of, provider, body_sha256: None };
            Ok((parse_asset(&row.asset)?, spot, row.fetched_at))
        })
        .collect()
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn parse_asset(id: &str) -> Result<AssetId, Error> {
    AssetId::parse(id).ok_or_else(|| unreadable("asset", id))
}

fn parse_provider(name: &str) -> Result<ProviderId, Error> {
    ProviderId::parse(name).ok_or_else(|| unreadable("source", name))
}

/// Prices are read as text: the decoder of the driver fills the last group of four digits with zeros.
fn parse_decimal(text: &str) -> Result<BigDecimal, Error> {
    text.parse().map_err(|_| unreadable("price", text))
}

/// The constraints of the tables exclude all of these. Such a row was written by another program.
fn unreadable(what: &str, text: &str) -> Error {
    Error::Internal(format!("stored {what} {text} is not readable"))
}
