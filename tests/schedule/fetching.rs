//! The daily fetch: gaps filled, revisions stored, outages outlived, given up at last and asked for again.

use std::time::Duration;

use jobs::{
    boot::{db::Database, shutdown::Shutdown},
    clock::Clock,
    config::Vars,
    prices::{self, Prices, ages::Ages, fetch::FetchPrices, providers::Providers},
    queue::{Kinds, Operator, Origin, Queue, Registry, Worker, status::Cancelled},
};
use sqlx::{AssertSqlSafe, PgPool, Row};
use time::{Duration as Span, OffsetDateTime, Time, macros::datetime};

use super::{
    SOON,
    source::{Kraken, Mood},
};
use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    stage::{FAST, Running},
};

/// The time of every test here.
const NOON: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

/// One asset from one source in two currencies, and the days before [`NOON`].
struct Market {
    database: TestDatabase,
    pool: PgPool,
    queue: Queue,
    prices: Prices,
    kraken: Kraken,
}

/// A row of the ledger.
#[derive(Debug, PartialEq)]
struct Fetch {
    outcome: Option<String>,
    stored: i64,
    revised: i64,
    rejected: i64,
    error: Option<String>,
}

impl Market {
    async fn open() -> Self {
        let database = database::fresh().await;
        let pool = database.pool().await;
        let (queue, kraken) = (Queue::start(pool.clone()), Kraken::default());
        let prices = feature(&pool, &queue, kraken.providers());
        let market = Self { database, pool, queue, prices, kraken };
        for days in 1..=40 {
            market.kraken.price(market.before(days), 100);
        }
        market
    }

    /// The bucket so many days before today.
    fn before(&self, days: i64) -> OffsetDateTime {
        NOON.replace_time(Time::MIDNIGHT) - Span::days(days)
    }

    fn worker(&self) -> Running {
        let shutdown = Shutdown::default();
        let registry = Registry::default().job::<FetchPrices>(self.prices.clone());
        let database = Database::parse(&self.database.url).expect("the harness's URL");
        let worker = Worker::start(&database, FAST, registry, &shutdown).expect("a worker");
        Running { worker, shutdown }
    }

    async fn ask(&self) -> usize {
        self.prices.fetch_today(Origin::default()).await.expect("asked").enqueued
    }

    async fn fetch(&self) -> Fetch {
        let query = "SELECT outcome, stored, revised, rejected, error FROM price_fetches";
        let row = sqlx::query(query).fetch_one(&self.pool).await.expect("one fetch");
        Fetch {
            outcome: row.get("outcome"),
            stored: row.get("stored"),
            revised: row.get("revised"),
            rejected: row.get("rejected"),
            error: row.get("error"),
        }
    }

    async fn until(&self, what: &str, condition: &str) {
        let query =
            format!("SELECT EXISTS (SELECT FROM price_fetches JOIN apalis.jobs ON id = job_id WHERE {condition})");
        eventually(what, SOON, async || {
            sqlx::query_scalar(AssertSqlSafe(query.clone())).fetch_one(&self.pool).await.expect("a condition")
        })
        .await;
    }

    async fn ended(&self) -> Fetch {
        self.until("the fetch has ended", "outcome IS NOT NULL AND status IN ('Done', 'Killed')").await;
        self.fetch().await
    }

    async fn execute(&self, sql: &str) {
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&self.pool).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// As a day later: the ledger has none of today.
    async fn fetch_again(&self) -> Fetch {
        self.execute("DELETE FROM price_fetches").await;
        assert_eq!(self.ask().await, 1);
        self.ended().await
    }

    async fn closes(&self) -> Vec<(OffsetDateTime, i64)> {
        let query = "SELECT bucket, close::bigint FROM prices WHERE currency = 'eur' AND asset = 'bitcoin'
                     AND source = 'kraken' AND interval = 'daily' ORDER BY bucket";
        sqlx::query_as(query).fetch_all(&self.pool).await.expect("prices")
    }
}

fn feature(pool: &PgPool, queue: &Queue, providers: Providers) -> Prices {
    let mut vars = Vars::from_pairs(&[("CRYPTO_ASSETS", "bitcoin"), ("CRYPTO_PROVIDERS", "kraken")]);
    let config = prices::Config::read(&mut vars);
    Prices::with_parts(pool, queue, &config, None, providers, Ages::DEFAULT, Clock::new(|| NOON))
}

fn done(stored: i64, revised: i64) -> Fetch {
    Fetch { outcome: Some("done".into()), stored, revised, rejected: 0, error: None }
}

#[tokio::test]
async fn a_month_is_filled_then_gaps_and_late_revisions() {
    let market = Market::open().await;
    let worker = market.worker();
    assert_eq!(market.ask().await, 1);
    assert_eq!(market.ended().await, done(60, 0));
    let month: Vec<_> = (1..=30).rev().map(|days| (market.before(days), 100)).collect();
    assert_eq!(market.closes().await, month);
    let call = |currency: &str, days| (currency.to_owned(), market.before(days), market.before(0));
    assert_eq!(market.kraken.calls(), [call("usd", 30), call("eur", 30)]);

    // Yesterday was revised, and so was a day that nobody asks about any more.
    market.kraken.price(market.before(1), 101);
    market.kraken.price(market.before(20), 99);
    assert_eq!(market.fetch_again().await, done(0, 2));
    assert_eq!(market.kraken.calls(), [call("usd", 3), call("eur", 3)]);
    assert_eq!(market.closes().await.last(), Some(&(market.before(1), 101)));

    market.execute("DELETE FROM prices WHERE currency = 'eur' AND bucket = (SELECT min(bucket) + interval '15 days' FROM prices)").await;
    assert_eq!(market.closes().await.len(), 29);
    assert_eq!(market.fetch_again().await, done(1, 0));
    assert_eq!(market.kraken.calls(), [call("usd", 3), call("eur", 15)]);
    assert_eq!(market.closes().await.len(), 30);
    worker.stop().await;
}

#[tokio::test]
async fn a_source_that_is_down_is_asked_again_until_it_is_back() {
    let market = Market::open().await;
    let worker = market.worker();
    market.kraken.is(Mood::Down);
    market.ask().await;
    market.until("it failed, and waits", "status = 'Pending' AND failures = 1 AND outcome IS NULL").await;
    assert_eq!(market.kraken.calls().len(), 2, "one currency may fare better than the other");
    let error = market.fetch().await.error.expect("a note");
    assert!(error.contains("kraken: connection refused"), "{error}");
    market.kraken.is(Mood::Later(Duration::from_secs(3600)));
    market.execute("UPDATE apalis.jobs SET run_at = now()").await;
    market.until("it snoozes", "status = 'Pending' AND failures = 1 AND run_at > now() + interval '50 minutes'").await;
    assert_eq!(market.kraken.calls().len(), 1, "who says later is not asked for more");
    market.kraken.is(Mood::Serves);
    market.execute("UPDATE apalis.jobs SET run_at = now()").await;
    assert_eq!(market.ended().await, done(60, 0));
    worker.stop().await;
}

#[tokio::test]
async fn what_is_not_offered_is_done_and_what_is_rejected_is_counted() {
    let market = Market::open().await;
    let worker = market.worker();
    market.kraken.is(Mood::Lacks("usd"));
    market.kraken.rejects("high below low");
    market.ask().await;
    let fetch = market.ended().await;
    assert_eq!((fetch.outcome.as_deref(), fetch.stored, fetch.rejected), (Some("done"), 30, 1));
    assert_eq!(fetch.error.as_deref(), Some("usd is not offered"));
    worker.stop().await;
    // Another worker, which does not have this source any more.
    let prices = feature(&market.pool, &market.queue, Providers([].into()));
    let market = Market { prices, ..market };
    let worker = market.worker();
    let fetch = market.fetch_again().await;
    assert_eq!(fetch.outcome.as_deref(), Some("not_offered"));
    assert_eq!(fetch.error.as_deref(), Some("kraken is no longer configured"));
    worker.stop().await;
}

#[tokio::test]
async fn who_comes_before_the_day_before_is_there_comes_again() {
    let market = Market::open().await;
    let worker = market.worker();
    market.ask().await;
    market.ended().await;
    // Tomorrow's fetch wants today, which has not ended.
    let job = r#"{"day":"2026-11-22","asset":"bitcoin","source":"kraken"}"#;
    market
        .execute("UPDATE price_fetches SET day = day + 1, job_id = 'early', finished_at = NULL, outcome = NULL")
        .await;
    let insert =
        "INSERT INTO apalis.jobs (id, job_type, job) VALUES ('early', 'fetch_prices', convert_to('{job}', 'UTF8'))";
    market.execute(&insert.replace("{job}", job)).await;
    market.until("it snoozes", "id = 'early' AND status = 'Pending' AND run_at > now() + interval '5 minutes'").await;
    let error = market.fetch().await.error;
    assert_eq!(error.as_deref(), Some("yesterday is not available yet"));
    worker.stop().await;
}

#[tokio::test]
async fn a_fetch_that_was_given_up_can_be_asked_for_again() {
    let market = Market::open().await;
    let worker = market.worker();
    market.kraken.is(Mood::Down);
    market.ask().await;
    market.until("it failed, and waits", "status = 'Pending' AND failures = 1").await;
    assert_eq!(market.ask().await, 0, "it is still on its way");
    market.execute("UPDATE apalis.jobs SET failures = 23, run_at = now()").await;
    let fetch = market.ended().await;
    assert_eq!(fetch.outcome.as_deref(), Some("dead"));
    assert!(fetch.error.is_some_and(|error| error.contains("connection refused")));
    market.kraken.is(Mood::Serves);
    assert_eq!(market.ask().await, 1);
    assert_eq!(market.ended().await, done(60, 0));
    assert_eq!(market.ask().await, 0, "it is done");
    worker.stop().await;
}

#[tokio::test]
async fn an_operator_cancels_a_fetch_and_replays_it() {
    let market = Market::open().await;
    market.ask().await;
    let kinds = Kinds::default().kind::<FetchPrices>(market.prices.clone());
    let operator = Operator::new(&market.pool, &market.queue, kinds);
    let id: String = sqlx::query_scalar("SELECT job_id FROM price_fetches").fetch_one(&market.pool).await.unwrap();
    assert!(matches!(operator.cancel(&id).await, Ok(Cancelled::AtOnce)));
    assert_eq!(market.fetch().await.outcome.as_deref(), Some("dead"));
    operator.replay(&id).await.expect("a replay");
    assert_eq!(market.fetch().await.outcome, None);
    let worker = market.worker();
    assert_eq!(market.ended().await, done(60, 0));
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_ends_in_the_middle_leaves_the_fetch_to_another() {
    let market = Market::open().await;
    market.kraken.is(Mood::Hangs);
    let first = market.worker();
    market.ask().await;
    market.until("it runs", "status = 'Running'").await;
    first.shutdown.drain.cancel();
    first.shutdown.now.cancel();
    first.stopped().await;
    market.kraken.is(Mood::Serves);
    let second = market.worker();
    assert_eq!(market.ended().await, done(60, 0));
    second.stop().await;
}
