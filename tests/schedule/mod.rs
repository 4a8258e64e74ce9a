//! Tests of schedules and of the daily price fetch: each time fires once, and each day is fetched once.
//!
//! | promise | tested by |
//! |---|---|
//! | each nominal time fires once, with any number of workers | `firing` |
//! | the same while the database's clock steps | `clocks` |
//! | missed fires are made up by policy; failed fires are retried | `catching_up` |
//! | operators fire now and skip the next fire; outcomes of fires | `orders` |
//! | a day's fetch exists once; it fills gaps, stores revisions and survives outages | `fetching` |
//! | workers and providers from end to end | `end_to_end` |
//! | real processes, the admin endpoint and the operator's commands | `processes` |

mod catching_up;
mod clocks;
mod end_to_end;
mod fake_kraken;
mod fetching;
mod firing;
mod orders;
mod processes;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use queue::{
    NewJob, Queue, Tx,
    operator::audit::{Order, Via},
    schedule::{CatchUp, Cron, Schedule, Schedules, Timing, Work},
};
use runtime::{db::Database, error::Error, shutdown::CancellationToken};
use sqlx::{AssertSqlSafe, PgPool};
use time::OffsetDateTime;
use tokio::task::JoinHandle;

use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    queue_harness::{ScriptedJob, Step},
};

const SOON: Duration = Duration::from_secs(60);
const NAME: &str = "tests";

/// An order of ada.
fn order() -> Order {
    Order::new("ada", Via::Cli, "a test").expect("an order")
}

/// Enqueues one job per fire, or fails while `fails` is set.
#[derive(Default)]
struct OneJob {
    fails: AtomicBool,
}

impl Work for OneJob {
    fn jobs<'a>(&'a self, _: &'a mut Tx, fire_time: OffsetDateTime) -> BoxFuture<'a, Result<Vec<NewJob>, Error>> {
        Box::pin(async move {
            if self.fails.load(Ordering::Relaxed) {
                return Err(Error::Unavailable("fails is set".into()));
            }
            let job = ScriptedJob { name: fire_time.to_string(), steps: vec![Step::Done] };
            Ok(vec![NewJob::of(&job)?])
        })
    }
}

/// A database and the work of its schedules; no scheduler runs yet.
struct ScheduleHarness {
    url: String,
    pool: PgPool,
    work: Arc<OneJob>,
    /// Removed with the harness.
    _database: Option<TestDatabase>,
}

impl ScheduleHarness {
    async fn new() -> Self {
        let database = database::fresh().await;
        let harness = Self::on_database(&database.url).await;
        Self { _database: Some(database), ..harness }
    }

    /// Uses a migrated database that the caller owns.
    async fn on_database(url: &str) -> Self {
        let pool = PgPool::connect(url).await.expect("a connection");
        Self { url: url.to_owned(), pool, work: Arc::default(), _database: None }
    }

    /// One schedule with its own pool, as in another process.
    fn schedules(&self, cron: &str, catch_up: CatchUp) -> Schedules {
        let pool = Database::parse(&self.url).expect("the harness's URL").pool("schedules", 2);
        let schedule = Schedule { name: NAME, cron: Cron::parse(cron).expect(cron), catch_up, work: self.work.clone() };
        Schedules::new(&pool, &Queue::start(pool.clone()), vec![schedule])
    }

    /// The recorded fires, ordered by nominal time.
    async fn fires(&self) -> Vec<FireRow> {
        let query = "SELECT fire_time, kind, passed_over, jobs, extract(epoch FROM fired_at - fire_time)::float8 AS lag
                     FROM schedule_fires ORDER BY fire_time";
        sqlx::query_as(query).fetch_all(&self.pool).await.expect("the recorded fires")
    }

    /// Waits until `count` fires are recorded, and returns them.
    async fn wait_for_fires(&self, count: usize) -> Vec<FireRow> {
        eventually("enough fires are recorded", SOON, async || self.fires().await.len() >= count).await;
        self.fires().await
    }

    async fn query_value<T>(&self, query: &str) -> T
    where
        T: Send + Unpin + sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>,
    {
        let query = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
        query.fetch_one(&self.pool).await.expect("a value")
    }

    async fn execute(&self, sql: &str) {
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The recorded actions: actor, action, target, reason and the fire time of the filter.
    async fn actions(&self) -> Vec<(String, String, String, String, Option<String>)> {
        let query = "SELECT actor, action, target, reason, filter ->> 'fire_time' FROM operator_actions ORDER BY id";
        sqlx::query_as(query).fetch_all(&self.pool).await.expect("the recorded actions")
    }

    /// Asserts that every fire has one job, and every job has a fire. One statement reads both: a scheduler may fire
    /// meanwhile, and the last commit of a stopped one may still be under way.
    async fn assert_jobs(&self) {
        let query = "SELECT (SELECT count(*) FROM apalis.jobs WHERE job_type = 'scripted'),
                            (SELECT count(*) FROM schedule_fires WHERE jobs = 1),
                            (SELECT count(*) FROM schedule_fires WHERE jobs <> (kind <> 'skipped')::int)";
        let (jobs, with_one, others): (i64, i64, i64) =
            sqlx::query_as(query).fetch_one(&self.pool).await.expect("three counts");
        assert_eq!((jobs, others), (with_one, 0), "{:?}", self.fires().await);
    }
}

#[derive(Debug, Clone, sqlx::FromRow)]
struct FireRow {
    fire_time: OffsetDateTime,
    kind: String,
    passed_over: i32,
    jobs: i32,
    lag: f64,
}

/// A running scheduler, as in a worker.
struct RunningScheduler {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningScheduler {
    fn start(schedules: Schedules, timing: Timing) -> Self {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(schedules.run(timing, stop.clone())), stop }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task)
            .await
            .expect("the scheduler stops")
            .expect("the scheduler does not panic");
    }
}

/// Asserts that every second from the first fire to the last fired exactly once.
fn assert_each_second(fires: &[FireRow]) {
    let times: Vec<i64> = fires.iter().map(|fire| fire.fire_time.unix_timestamp()).collect();
    let all: Vec<i64> = (times[0]..times[0] + times.len() as i64).collect();
    assert_eq!(times, all);
    assert!(fires.iter().all(|fire| fire.fire_time.nanosecond() == 0 && fire.passed_over == 0), "{fires:?}");
}
