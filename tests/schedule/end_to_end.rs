//! End-to-end tests from the cron expression to the stored price: real workers and fake providers.

use std::time::Duration;

use jobs::prices::model::ProviderId;
use sqlx::{AssertSqlSafe, PgPool};

use super::SOON;
use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    fake_providers::{FakeProviders, Fault},
    process::{Process, start_worker},
};

/// A fetch waits for the provider's rate limit, and for its next attempt.
const LONG: Duration = Duration::from_secs(90);
/// The fetches of the first day. The next day's fetches follow when midnight passes during a test.
const FETCHES: &str = "(SELECT * FROM price_fetches WHERE day = (SELECT min(day) FROM price_fetches)) AS fetches";
const ALL_DONE: &str = "count(*) = 12 AND bool_and(coalesce(outcome = 'done', false))";
/// The warning about a misspelt name.
const UNKNOWN_NAME: &str = "no provider that could be asked knows a configured name";
/// For a worker that soon takes over the jobs of a dead one. Next to another worker, a stall would cost it its lease.
const SHORT_LEASE: [(&str, &str); 3] =
    [("QUEUE_LEASE_SECONDS", "1"), ("QUEUE_HEARTBEAT_SECONDS", "0.2"), ("QUEUE_RESCUE_SECONDS", "0.2")];

/// A database and fake providers for real workers.
struct FetchSystem {
    database: TestDatabase,
    pool: PgPool,
    providers: FakeProviders,
}

impl FetchSystem {
    async fn new() -> Self {
        let database = database::fresh().await;
        Self { pool: database.pool().await, database, providers: FakeProviders::start().await }
    }

    /// Starts a worker that fires every two seconds.
    async fn worker(&self) -> Process {
        self.worker_with(&[]).await
    }

    async fn worker_with(&self, more: &[(&str, &str)]) -> Process {
        let urls = self.providers.variables();
        let mut variables: Vec<(&str, &str)> = urls.iter().map(|(name, url)| (*name, url.as_str())).collect();
        variables.push(("CRYPTO_FETCH_CRON", "*/2 * * * * *"));
        variables.extend(more);
        start_worker(&self.database.url, &variables).await
    }

    async fn holds(&self, query: &str) -> bool {
        let query = sqlx::query_scalar::<_, Option<bool>>(AssertSqlSafe(query.to_owned()));
        query.fetch_one(&self.pool).await.expect("a condition").unwrap_or_default()
    }

    /// Waits for a condition, and makes waiting fetches due in the meantime.
    async fn wait_until(&self, what: &str, query: &str) {
        eventually(what, LONG, async || {
            let make_due =
                "UPDATE apalis.jobs SET run_at = now() WHERE job_type = 'fetch_prices' AND status = 'Pending'";
            sqlx::query(make_due).execute(&self.pool).await.expect("jobs");
            self.holds(query).await
        })
        .await;
    }

    async fn wait_until_done(&self, what: &str) {
        self.wait_until(what, &format!("SELECT {ALL_DONE} FROM {FETCHES}")).await;
    }

    /// Asserts that the month before the first day is stored, with the prices that the fakes returned.
    async fn assert_month(&self) {
        let query = "SELECT asset, currency, source, extract(epoch FROM bucket)::bigint, trim_scale(close)::text
                     FROM prices
                     WHERE interval = 'daily'
                       AND bucket < (SELECT min(day) FROM price_fetches)::timestamp AT TIME ZONE 'UTC'";
        let rows: Vec<(String, String, String, i64, String)> =
            sqlx::query_as(query).fetch_all(&self.pool).await.expect("prices");
        for (asset, currency, source, bucket, close) in &rows {
            let price = self.providers.price(asset, currency, *bucket + 86_400);
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
async fn two_workers_fetch_a_month_from_every_provider_once() {
    let system = FetchSystem::new().await;
    let workers = [system.worker().await, system.worker().await];
    system.wait_until_done("all fetches are done").await;
    system.assert_month().await;
    let offered =
        format!("SELECT error = 'usd is not offered' FROM {FETCHES} WHERE source = 'binance' AND asset = 'bitcoin'");
    assert!(system.holds(&offered).await);
    // Each day has one last fetch, and one worker logs it.
    let day: String =
        sqlx::query_scalar("SELECT min(day)::text FROM price_fetches").fetch_one(&system.pool).await.unwrap();
    let complete_lines = || {
        let logs = workers.iter().map(Process::log);
        let is_complete = |line: &&str| line.contains("all fetches of the day have ended") && line.contains(&day);
        logs.map(|log| log.lines().filter(is_complete).count()).sum::<usize>()
    };
    eventually("the day is logged as complete", SOON, async || complete_lines() == 1).await;
    // Further fires request no further fetch of a day.
    let all_again = "SELECT (SELECT count(*) > 2 FROM schedule_fires WHERE jobs = 0)
                        AND (SELECT count(*) = 12 * count(DISTINCT day) AND bool_and(coalesce(outcome = 'done', false))
                             FROM price_fetches)";
    system.wait_until("the schedule fires again", all_again).await;
    assert_eq!(complete_lines(), 1);
    let days: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT day) FROM price_fetches").fetch_one(&system.pool).await.unwrap();
    assert_eq!(system.providers.calls(ProviderId::Kraken), 6 * days as usize, "three assets in two currencies");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_was_down_is_fetched_when_it_is_back() {
    let system = FetchSystem::new().await;
    system.providers.fail(ProviderId::Kraken, Fault::Status(500));
    let _worker = system.worker().await;
    let others = format!(
        "SELECT count(*) FILTER (WHERE outcome = 'done') = 9
            AND count(*) FILTER (WHERE error LIKE 'kraken%' AND outcome IS NULL) = 3 FROM {FETCHES}"
    );
    system.wait_until("all other providers are fetched", &others).await;
    assert!(system.holds("SELECT count(*) = 0 FROM prices WHERE source = 'kraken'").await);
    system.providers.heal(ProviderId::Kraken);
    system.wait_until_done("the provider is fetched").await;
    system.assert_month().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fetches_of_a_killed_worker_continue_in_another() {
    let system = FetchSystem::new().await;
    for source in ProviderId::ALL {
        system.providers.fail(source, Fault::Slow(Duration::from_secs(600)));
    }
    let killed = system.worker_with(&SHORT_LEASE).await;
    let running = "SELECT count(*) >= 3 FROM apalis.jobs WHERE job_type = 'fetch_prices' AND status = 'Running'";
    system.wait_until("the worker is fetching", running).await;
    drop(killed);
    ProviderId::ALL.into_iter().for_each(|source| system.providers.heal(source));
    let _worker = system.worker_with(&SHORT_LEASE).await;
    system.wait_until_done("the other worker has fetched").await;
    system.assert_month().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_unknown_to_every_provider_is_logged_with_a_suggestion() {
    let system = FetchSystem::new().await;
    let names = [("CRYPTO_ASSETS", "btc,bitcoin"), ("CRYPTO_CURRENCIES", "usd,euro")];
    let worker = system.worker_with(&names).await;
    let ended = format!("SELECT count(*) = 8 AND bool_and(outcome IS NOT NULL) FROM {FETCHES}");
    system.wait_until("all fetches are done", &ended).await;
    let lines = || {
        let is_warning = |line: &&str| line.contains(UNKNOWN_NAME);
        worker.log().lines().filter(is_warning).map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("both unknown names are logged", SOON, async || lines().len() >= 2).await;
    assert_eq!(lines().len(), 2, "each name is logged once: {:?}", lines());
    for (name, suggestion) in [("btc", "bitcoin"), ("euro", "eur")] {
        assert!(lines().iter().any(|line| line.contains(name) && line.contains(suggestion)), "{name}: {:?}", lines());
    }
    for (asset, note) in [
        ("btc", "CRYPTO_ASSETS: no provider knows btc; did you mean bitcoin?"),
        ("bitcoin", "CRYPTO_CURRENCIES: no provider knows euro; did you mean eur?"),
    ] {
        let noted =
            format!("SELECT error LIKE '%{note}%' FROM {FETCHES} WHERE source = 'kraken' AND asset = '{asset}'");
        assert!(system.holds(&noted).await, "{asset}: {note}");
    }
    eventually("the day is complete", SOON, async || worker.log().contains("all fetches of the day have ended")).await;
}

/// One provider refuses every call, as from a blocked country. The others still show that a name is misspelt.
#[tokio::test]
async fn a_blocked_provider_does_not_hide_an_unknown_name() {
    let system = FetchSystem::new().await;
    system.providers.fail(ProviderId::Binance, Fault::Status(451));
    system.providers.fail_lists(ProviderId::Binance, true);
    let mut worker = system.worker_with(&[("CRYPTO_ASSETS", "bitconi"), ("CRYPTO_CURRENCIES", "usd")]).await;
    let note =
        "CRYPTO_ASSETS: no provider that could be asked knows bitconi; did you mean bitcoin? (could not ask binance)";
    let noted = format!("SELECT count(*) > 0 FROM {FETCHES} WHERE error LIKE '%{note}%'");
    system.wait_until("the name and the blocked provider are noted", &noted).await;
    // Another thread writes the log.
    worker.wait_for_line(UNKNOWN_NAME).await;
}
