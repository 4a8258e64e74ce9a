//! From the cron expression to the stored price: real workers, and a stand-in for the sources.

use std::time::Duration;

use jobs::prices::model::ProviderId;
use sqlx::{AssertSqlSafe, PgPool};

use super::SOON;
use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    exchange::{Exchange, Fault},
    process::{Process, worker},
};

/// A fetch waits for its source's turn, and for the next try.
const LONG: Duration = Duration::from_secs(90);
const DONE: &str = "SELECT count(*) = 12 AND bool_and(coalesce(outcome = 'done', false)) FROM price_fetches";

/// Sources that answer, and workers that ask them.
struct World {
    database: TestDatabase,
    pool: PgPool,
    exchange: Exchange,
}

impl World {
    async fn new() -> Self {
        let database = database::fresh().await;
        Self { pool: database.pool().await, database, exchange: Exchange::start().await }
    }

    /// One that fires every other second, and takes over soon from one that died.
    async fn worker(&self) -> Process {
        self.worker_with(&[]).await
    }

    async fn worker_with(&self, more: &[(&str, &str)]) -> Process {
        let sources = self.exchange.variables();
        let mut variables: Vec<(&str, &str)> = sources.iter().map(|(name, url)| (*name, url.as_str())).collect();
        variables.extend([
            ("CRYPTO_FETCH_CRON", "*/2 * * * * *"),
            ("QUEUE_LEASE_SECONDS", "1"),
            ("QUEUE_HEARTBEAT_SECONDS", "0.2"),
            ("QUEUE_RESCUE_SECONDS", "0.2"),
        ]);
        variables.extend(more);
        worker(&self.database.url, &variables).await
    }

    async fn holds(&self, query: &str) -> bool {
        let query = sqlx::query_scalar::<_, Option<bool>>(AssertSqlSafe(query.to_owned()));
        query.fetch_one(&self.pool).await.expect("a condition").unwrap_or_default()
    }

    /// Waits for a condition; meanwhile no job waits for its hour.
    async fn until(&self, what: &str, query: &str) {
        eventually(what, LONG, async || {
            let hurry = "UPDATE apalis.jobs SET run_at = now() WHERE job_type = 'fetch_prices' AND status = 'Pending'";
            sqlx::query(hurry).execute(&self.pool).await.expect("jobs");
            self.holds(query).await
        })
        .await;
    }

    /// Every source that offers it has told the same last month as the exchange has it.
    async fn assert_month(&self) {
        let query = "SELECT asset, currency, source, extract(epoch FROM bucket)::bigint, trim_scale(close)::text
                     FROM prices WHERE interval = 'daily'";
        let rows: Vec<(String, String, String, i64, String)> =
            sqlx::query_as(query).fetch_all(&self.pool).await.expect("prices");
        for (asset, currency, source, bucket, close) in &rows {
            let price = self.exchange.price(asset, currency, *bucket + 86_400);
            assert_eq!(
                close.parse::<f64>().unwrap(),
                price.parse::<f64>().unwrap(),
                "{asset} {currency} {source} {bucket}"
            );
        }
        for source in ProviderId::ALL {
            let count =
                rows.iter().filter(|row| row.2 == source.as_str() && row.0 == "bitcoin" && row.1 == "eur").count();
            assert_eq!(count, 30, "{source}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_fetch_a_month_from_every_source_once() {
    let world = World::new().await;
    let workers = [world.worker().await, world.worker().await];
    world.until("all is fetched", DONE).await;
    world.assert_month().await;
    let offered =
        "SELECT error = 'usd is not offered' FROM price_fetches WHERE source = 'binance' AND asset = 'bitcoin'";
    assert!(world.holds(offered).await);
    // A day has one last fetch, and one worker says so.
    let days = "SELECT count(DISTINCT day) FROM price_fetches";
    let days: i64 = sqlx::query_scalar(days).fetch_one(&world.pool).await.unwrap();
    let told = || workers.iter().map(|worker| worker.log().matches("PRICES_DAY_COMPLETE").count()).sum::<usize>();
    eventually("it is told", SOON, async || told() == days as usize).await;
    // Fires go on, and ask for nothing more.
    world.until("more fires", "SELECT count(*) > 2 FROM schedule_fires WHERE jobs = 0").await;
    assert_eq!(world.exchange.calls(ProviderId::Kraken), 6, "three assets in two currencies");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_down_is_fetched_when_it_is_back() {
    let world = World::new().await;
    world.exchange.fail(ProviderId::Kraken, Fault::Status(500));
    let _worker = world.worker().await;
    let others = "SELECT count(*) FILTER (WHERE outcome = 'done') = 9
                     AND count(*) FILTER (WHERE error LIKE 'kraken%' AND outcome IS NULL) = 3 FROM price_fetches";
    world.until("all others are fetched", others).await;
    assert!(world.holds("SELECT count(*) = 0 FROM prices WHERE source = 'kraken'").await);
    world.exchange.heal(ProviderId::Kraken);
    world.until("it is fetched", DONE).await;
    world.assert_month().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_was_fetching_another_one_fetches() {
    let world = World::new().await;
    for source in ProviderId::ALL {
        world.exchange.fail(source, Fault::Slow(Duration::from_secs(600)));
    }
    let killed = world.worker().await;
    let running = "SELECT count(*) >= 3 FROM apalis.jobs WHERE job_type = 'fetch_prices' AND status = 'Running'";
    world.until("it is fetching", running).await;
    drop(killed);
    ProviderId::ALL.into_iter().for_each(|source| world.exchange.heal(source));
    let _worker = world.worker().await;
    world.until("another one fetches it", DONE).await;
    world.assert_month().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_provider_knows_is_logged_with_what_may_be_meant() {
    let world = World::new().await;
    let names = [("CRYPTO_ASSETS", "btc,bitcoin"), ("CRYPTO_CURRENCIES", "usd,euro")];
    let worker = world.worker_with(&names).await;
    world.until("all is fetched", "SELECT count(*) = 8 AND bool_and(outcome IS NOT NULL) FROM price_fetches").await;
    let lines = || {
        worker.log().lines().filter(|line| line.contains("PRICE_NAME_UNKNOWN")).map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("both are logged", SOON, async || lines().len() >= 2).await;
    assert_eq!(lines().len(), 2, "once: {:?}", lines());
    for (name, suggestion) in [("btc", "bitcoin"), ("euro", "eur")] {
        assert!(lines().iter().any(|line| line.contains(name) && line.contains(suggestion)), "{name}: {:?}", lines());
    }
    for (asset, note) in [
        ("btc", "CRYPTO_ASSETS: no provider knows btc; did you mean bitcoin?"),
        ("bitcoin", "CRYPTO_CURRENCIES: no provider knows euro; did you mean eur?"),
    ] {
        let noted =
            format!("SELECT error LIKE '%{note}%' FROM price_fetches WHERE source = 'kraken' AND asset = '{asset}'");
        assert!(world.holds(&noted).await, "{asset}: {note}");
    }
    eventually("the day is complete", SOON, async || worker.log().contains("PRICES_DAY_COMPLETE")).await;
}
