//! SQL that adds prices for the benchmark.

use super::super::Bench;
use runtime::{error::Error, executor::repeatable};

/// Adds a daily price for each of the last `days` completed days.
pub async fn add(bench: &Bench, asset: &str, currency: &str, days: i32) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO prices (asset, currency, interval, bucket, source, close)
         SELECT $1, $2, 'daily', date_trunc('day', now(), 'UTC') - make_interval(hours => 24 * back), 'coingecko',
                100000 + back + 0.25
         FROM generate_series(1, $3::int) AS back
         ON CONFLICT DO NOTHING",
        asset,
        currency,
        days,
    )
    .execute(repeatable(&bench.pool))
    .await?;
    Ok(())
}
