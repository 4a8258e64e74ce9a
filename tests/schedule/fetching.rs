//! Tests of the daily price fetch: it fills gaps, stores revisions, survives outages and can be repeated.

use std::time::Duration;

use jobs::prices::{self, Prices, ages::Ages, fetch::FetchPrices, providers::Providers};
use queue::{JobKinds, Operator, Origin, Queue, Registry, Worker, status::Cancelled};
use runtime::{clock::Clock, config::EnvReader, db::Database, shutdown::Shutdown};
use sqlx::{AssertSqlSafe, PgPool, Row};
use time::{Duration as Span, OffsetDateTime, Time, macros::datetime};

use super::{
    SOON,
    fake_kraken::{FakeKraken, FakeMode},
};
use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    queue_harness::{FAST, RunningWorker, order},
};

/// The current time in every test of this file.
const NOON: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

/// The price feature with one asset, one provider and two currencies, and prices for 40 days before [`NOON`].
struct DailyFetchHarness {
    database: TestDatabase,
    pool: PgPool,
    queue: Queue,
    prices: Prices,
    kraken: FakeKraken,
}

/// A row of `price_fetches`.
#[derive(Debug, PartialEq)]
struct FetchRow {
    outcome: Option<String>,
    stored: i64,
    revised: i64,
    rejected: i64,
    error: Option<String>,
}

impl DailyFetchHarness {
    async fn start() -> Self {
        let database = database::fresh().await;
        let pool = database.pool().await;
        let (queue, kraken) = (Queue::start(pool.clone().into()), FakeKraken::default());
        let prices = start_prices(&pool, &queue, kraken.providers());
        let harness = Self { database, pool, queue, prices, kraken };
        for days in 1..=40 {
            harness.kraken.set_price(harness.days_ago(days), 100);
        }
        harness
    }

    /// The bucket `days` before today.
    fn days_ago(&self, days: i64) -> OffsetDateTime {
        NOON.replace_time(Time::MIDNIGHT) - Span::days(days)
    }

    fn start_worker(&self) -> RunningWorker {
        let shutdown = Shutdown::default();
        let registry = Registry::default().job::<FetchPrices>(self.prices.clone());
        let database = Database::parse(&self.database.url).expect("the harness's URL");
        let worker = Worker::start(&database, FAST, registry, &shutdown).expect("a worker");
        RunningWorker { worker, shutdown }
    }

    /// Requests today's fetch, and returns how many jobs that enqueued.
    async fn request_fetch(&self) -> usize {
        self.prices.fetch_today(Origin::default(), &order()).await.expect("an accepted request").enqueued
    }

    async fn fetch_row(&self) -> FetchRow {
        let query = "SELECT outcome, stored, revised, rejected, error FROM price_fetches";
        let row = sqlx::query(query).fetch_one(&self.pool).await.expect("one fetch");
        FetchRow {
            outcome: row.get("outcome"),
            stored: row.get("stored"),
            revised: row.get("revised"),
            rejected: row.get("rejected"),
            error: row.get("error"),
        }
    }

    async fn wait_until(&self, what: &str, condition: &str) {
        let query =
            format!("SELECT EXISTS (SELECT FROM price_fetches JOIN apalis.jobs ON id = job_id WHERE {condition})");
        eventually(what, SOON, async || {
            sqlx::query_scalar(AssertSqlSafe(query.clone())).fetch_one(&self.pool).await.expect("a condition")
        })
        .await;
    }

    async fn wait_for_end(&self) -> FetchRow {
        self.wait_until("the fetch has ended", "outcome IS NOT NULL AND status IN ('Done', 'Killed')").await;
        self.fetch_row().await
    }

    async fn execute(&self, sql: &str) {
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&self.pool).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// Lets each fetch that waits again wait half an hour longer. The pause after a failure is random: another run may
    /// come before the test has seen what this one did.
    async fn lengthen_pauses(&self) {
        self.execute(
            "CREATE FUNCTION lengthen_pause() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN NEW.run_at := NEW.run_at + interval '30 minutes'; RETURN NEW; END $$",
        )
        .await;
        self.execute(
            "CREATE TRIGGER lengthen_pause BEFORE UPDATE ON apalis.jobs FOR EACH ROW
             WHEN (OLD.status = 'Running' AND NEW.status = 'Pending') EXECUTE FUNCTION lengthen_pause()",
        )
        .await;
    }

    /// Fetches once more, as on the next day: without a row for today.
    async fn fetch_again(&self) -> FetchRow {
        self.execute("DELETE FROM price_fetches").await;
        assert_eq!(self.request_fetch().await, 1);
        self.wait_for_end().await
    }

    async fn closes(&self) -> Vec<(OffsetDateTime, i64)> {
        let query = "SELECT bucket, close::bigint FROM prices WHERE currency = 'eur' AND asset = 'bitcoin'
                     AND source = 'kraken' AND interval = 'daily' ORDER BY bucket";
        sqlx::query_as(query).fetch_all(&self.pool).await.expect("prices")
    }

    /// The number of the response that each close in EUR came from.
    async fn responses(&self) -> Vec<i32> {
        let query = "SELECT get_byte(body_sha256, 31) FROM prices WHERE currency = 'eur' ORDER BY bucket";
        sqlx::query_scalar(query).fetch_all(&self.pool).await.expect("hashes")
    }
}

/// The price feature with these providers, at [`NOON`].
fn start_prices(pool: &PgPool, queue: &Queue, providers: Providers) -> Prices {
    let mut vars = EnvReader::from_pairs(&[("CRYPTO_ASSETS", "bitcoin"), ("CRYPTO_PROVIDERS", "kraken")]);
    let config = prices::Config::read(&mut vars);
    Prices::with_parts(&pool.clone().into(), queue, &config, None, providers, Ages::DEFAULT, Clock::new(|| NOON))
}

/// The row of a fetch that stored and revised this many prices.
fn done(stored: i64, revised: i64) -> FetchRow {
    FetchRow { outcome: Some("done".into()), stored, revised, rejected: 0, error: None }
}

#[tokio::test]
async fn a_month_is_filled_then_gaps_and_late_revisions() {
    let harness = DailyFetchHarness::start().await;
    let worker = harness.start_worker();
    assert_eq!(harness.request_fetch().await, 1);
    assert_eq!(harness.wait_for_end().await, done(60, 0));
    let month: Vec<_> = (1..=30).rev().map(|days| (harness.days_ago(days), 100)).collect();
    assert_eq!(harness.closes().await, month);
    let call = |currency: &str, days| (currency.to_owned(), harness.days_ago(days), harness.days_ago(0));
    assert_eq!(harness.kraken.take_calls(), [call("usd", 30), call("eur", 30)]);
    assert_eq!(harness.responses().await, [2; 30]);

    // Two days are revised: yesterday, and a day that is no longer fetched.
    harness.kraken.set_price(harness.days_ago(1), 101);
    harness.kraken.set_price(harness.days_ago(20), 99);
    assert_eq!(harness.fetch_again().await, done(0, 2));
    assert_eq!(harness.kraken.take_calls(), [call("usd", 3), call("eur", 3)]);
    assert_eq!(harness.closes().await.last(), Some(&(harness.days_ago(1), 101)));
    let responses = harness.responses().await;
    assert_eq!((&responses[..29], responses[29]), (&[2; 29][..], 4), "an unchanged price is not written again");

    harness.execute("DELETE FROM prices WHERE currency = 'eur' AND bucket = (SELECT min(bucket) + interval '15 days' FROM prices)").await;
    assert_eq!(harness.closes().await.len(), 29);
    assert_eq!(harness.fetch_again().await, done(1, 0));
    assert_eq!(harness.kraken.take_calls(), [call("usd", 3), call("eur", 15)]);
    assert_eq!(harness.closes().await.len(), 30);
    worker.stop().await;
}

#[tokio::test]
async fn a_provider_that_is_down_is_called_again_until_it_is_back() {
    let harness = DailyFetchHarness::start().await;
    harness.lengthen_pauses().await;
    let worker = harness.start_worker();
    harness.kraken.set_mode(FakeMode::Down);
    harness.request_fetch().await;
    harness.wait_until("the fetch failed and waits", "status = 'Pending' AND failures = 1 AND outcome IS NULL").await;
    assert_eq!(harness.kraken.take_calls().len(), 2, "each currency is tried, even if another failed");
    let error = harness.fetch_row().await.error.expect("a note");
    assert!(error.contains("kraken: connection refused"), "{error}");
    harness.kraken.set_mode(FakeMode::RetryAfter(Duration::from_secs(3600)));
    harness.execute("UPDATE apalis.jobs SET run_at = now()").await;
    harness
        .wait_until(
            "the fetch is snoozed",
            // The hour that the provider asks for, and the half of one that is added.
            "status = 'Pending' AND failures = 1 AND run_at > now() + interval '80 minutes'",
        )
        .await;
    assert_eq!(harness.kraken.take_calls().len(), 1, "a provider that asks to wait gets no second call");
    harness.kraken.set_mode(FakeMode::Works);
    harness.execute("UPDATE apalis.jobs SET run_at = now()").await;
    assert_eq!(harness.wait_for_end().await, done(60, 0));
    worker.stop().await;
}

#[tokio::test]
async fn a_missing_currency_ends_a_fetch_and_rejected_rows_are_counted() {
    let harness = DailyFetchHarness::start().await;
    let worker = harness.start_worker();
    harness.kraken.set_mode(FakeMode::WithoutCurrency("usd"));
    harness.kraken.add_rejected_row("high below low");
    harness.request_fetch().await;
    let row = harness.wait_for_end().await;
    assert_eq!((row.outcome.as_deref(), row.stored, row.rejected), (Some("done"), 30, 1));
    assert_eq!(row.error.as_deref(), Some("usd is not offered"));
    worker.stop().await;
    // The next worker no longer has this provider.
    let prices = start_prices(&harness.pool, &harness.queue, Providers([].into()));
    let harness = DailyFetchHarness { prices, ..harness };
    let worker = harness.start_worker();
    let row = harness.fetch_again().await;
    assert_eq!(row.outcome.as_deref(), Some("not_offered"));
    assert_eq!(row.error.as_deref(), Some("kraken is no longer configured"));
    worker.stop().await;
}

#[tokio::test]
async fn a_fetch_that_starts_before_the_day_has_ended_is_repeated() {
    let harness = DailyFetchHarness::start().await;
    let worker = harness.start_worker();
    harness.request_fetch().await;
    harness.wait_for_end().await;
    // Tomorrow's fetch needs today's price, but today has not ended.
    let job = r#"{"day":"2026-11-22","asset":"bitcoin","source":"kraken"}"#;
    harness
        .execute("UPDATE price_fetches SET day = day + 1, job_id = 'early', finished_at = NULL, outcome = NULL")
        .await;
    let insert =
        "INSERT INTO apalis.jobs (id, job_type, job) VALUES ('early', 'fetch_prices', convert_to('{job}', 'UTF8'))";
    harness.execute(&insert.replace("{job}", job)).await;
    harness
        .wait_until(
            "the fetch is snoozed",
            "id = 'early' AND status = 'Pending' AND run_at > now() + interval '5 minutes'",
        )
        .await;
    let error = harness.fetch_row().await.error;
    assert_eq!(error.as_deref(), Some("yesterday is not available yet"));
    worker.stop().await;
}

#[tokio::test]
async fn a_dead_fetch_can_be_requested_again() {
    let harness = DailyFetchHarness::start().await;
    harness.lengthen_pauses().await;
    let worker = harness.start_worker();
    harness.kraken.set_mode(FakeMode::Down);
    harness.request_fetch().await;
    harness.wait_until("the fetch failed and waits", "status = 'Pending' AND failures = 1").await;
    assert_eq!(harness.request_fetch().await, 0, "the fetch is still running");
    harness.execute("UPDATE apalis.jobs SET failures = 23, run_at = now()").await;
    let row = harness.wait_for_end().await;
    assert_eq!(row.outcome.as_deref(), Some("dead"));
    assert!(row.error.is_some_and(|error| error.contains("connection refused")));
    harness.kraken.set_mode(FakeMode::Works);
    assert_eq!(harness.request_fetch().await, 1);
    assert_eq!(harness.wait_for_end().await, done(60, 0));
    assert_eq!(harness.request_fetch().await, 0, "the fetch is done");
    worker.stop().await;
}

#[tokio::test]
async fn an_operator_cancels_a_fetch_and_replays_it() {
    let harness = DailyFetchHarness::start().await;
    harness.request_fetch().await;
    let kinds = JobKinds::default().kind::<FetchPrices>(harness.prices.clone());
    let operator = Operator::new(&harness.pool.clone().into(), &harness.queue, kinds);
    let id: String = sqlx::query_scalar("SELECT job_id FROM price_fetches").fetch_one(&harness.pool).await.unwrap();
    assert!(matches!(operator.cancel(&id, &order()).await, Ok(Cancelled::AtOnce)));
    assert_eq!(harness.fetch_row().await.outcome.as_deref(), Some("dead"));
    operator.replay(&id, &order()).await.expect("a replay");
    assert_eq!(harness.fetch_row().await.outcome, None);
    let worker = harness.start_worker();
    assert_eq!(harness.wait_for_end().await, done(60, 0));
    worker.stop().await;
}

#[tokio::test]
async fn a_fetch_of_a_stopped_worker_continues_in_another() {
    let harness = DailyFetchHarness::start().await;
    harness.kraken.set_mode(FakeMode::Hangs);
    let first = harness.start_worker();
    harness.request_fetch().await;
    harness.wait_until("the fetch runs", "status = 'Running'").await;
    first.abort().await;
    harness.kraken.set_mode(FakeMode::Works);
    let second = harness.start_worker();
    assert_eq!(harness.wait_for_end().await, done(60, 0));
    second.stop().await;
}
