//! The migration of prices: CoinGecko's prices move to the bucket that they close; those of the exchanges stay.

use std::time::Duration;

use runtime::migrate;
use sqlx::PgPool;

use super::{execute, migrations_dir, read_migrator, versions};
use crate::harness::database;

const MOVES: i64 = 20_261_128_150_000;
/// Three daily and 30 hourly prices from each of two providers; Berlin's clocks change on the second day.
const FILL: &str = "
    INSERT INTO prices (asset, currency, interval, bucket, source, close)
    SELECT 'bitcoin', 'usd', 'daily', timestamptz '2026-10-24 00:00Z' + n * interval '24 hours', source, 100 + n
    FROM generate_series(0, 2) AS n, unnest(ARRAY['coingecko', 'kraken']) AS source;
    INSERT INTO prices (asset, currency, interval, bucket, source, close)
    SELECT 'bitcoin', 'usd', 'hourly', timestamptz '2026-10-24 20:00Z' + n * interval '1 hour', source, 200 + n
    FROM generate_series(0, 29) AS n, unnest(ARRAY['coingecko', 'kraken']) AS source";

/// Provider, interval, Unix seconds of the bucket, price.
type Row = (String, String, i64, i64);

async fn rows(pool: &PgPool) -> Vec<Row> {
    let query =
        "SELECT source, interval, extract(epoch FROM bucket)::bigint, close::bigint FROM prices ORDER BY 1, 2, 3";
    sqlx::query_as(query).fetch_all(pool).await.expect("prices")
}

#[tokio::test]
async fn prices_of_coingecko_move_by_one_bucket_and_back() {
    let versions = versions().await;
    let before = versions[versions.iter().position(|version| *version == MOVES).expect("the migration") - 1];
    let database = database::fresh().await;
    let pool = database.pool().await;
    read_migrator().await.undo(&pool, before).await.expect("down");
    execute(&pool, FILL).await;
    let unmoved = rows(&pool).await;
    let moved: Vec<Row> = unmoved
        .iter()
        .map(|(source, interval, bucket, close)| {
            let length = if interval == "daily" { 86_400 } else { 3600 };
            let by = if source == "coingecko" { length } else { 0 };
            (source.clone(), interval.clone(), bucket - by, *close)
        })
        .collect();
    migrate::run_to(&pool.clone().into(), Some(MOVES), Duration::ZERO).await.expect("up");
    assert_eq!(rows(&pool).await, moved);
    read_migrator().await.undo(&pool, before).await.expect("down");
    assert_eq!(rows(&pool).await, unmoved);
    // By hand, in a session with another time zone than UTC.
    let up = std::fs::read_to_string(migrations_dir().join(format!("{MOVES}_move_coingecko_prices.up.sql")))
        .expect("a file");
    execute(&pool, &format!("BEGIN; SET LOCAL timezone = 'Europe/Berlin'; {up}; COMMIT")).await;
    assert_eq!(rows(&pool).await, moved);
}
