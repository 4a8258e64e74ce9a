//! Schedules and the daily fetch: each fire once, whatever is missed made up, each day's prices fetched once.
//!
//! | promise | held by |
//! |---|---|
//! | each nominal time fires once, however many workers tick | `firing` |
//! | and whatever the database's clock does | `clocks` |
//! | what was missed is made up by policy; what fails is tried again | `catching_up` |
//! | a day's fetch exists once; gaps are filled, revisions stored, outages outlived | `fetching` |
//! | workers and sources from end to end | `whole` |
//! | real processes, the admin's endpoint and the operator's commands | `processes` |

mod catching_up;
mod clocks;
mod fetching;
mod firing;
mod processes;
mod source;
mod whole;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use jobs::{
    boot::{db::Database, shutdown::CancellationToken},
    error::Error,
    queue::{NewJob, Queue, Tx},
    schedule::{CatchUp, Cron, Schedule, Schedules, Timing, Work},
};
use sqlx::{AssertSqlSafe, PgPool};
use time::OffsetDateTime;
use tokio::task::JoinHandle;

use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    queue_harness::{ScriptedJob, Step},
};

const SOON: Duration = Duration::from_secs(30);
const NAME: &str = "tests";

/// Enqueues one job a fire, unless told to fail.
#[derive(Default)]
struct OneJob {
    fails: AtomicBool,
}

impl Work for OneJob {
    fn jobs<'a>(&'a self, _: &'a mut Tx, fire_time: OffsetDateTime) -> BoxFuture<'a, Result<Vec<NewJob>, Error>> {
        Box::pin(async move {
            if self.fails.load(Ordering::Relaxed) {
                return Err(Error::Unavailable("the script".into()));
            }
            let job = ScriptedJob { name: fire_time.to_string(), steps: vec![Step::Done] };
            Ok(vec![NewJob::of(&job)?])
        })
    }
}

/// A database with schedules that nobody has started yet.
struct Ground {
    url: String,
    pool: PgPool,
    work: Arc<OneJob>,
    _kept: Option<TestDatabase>,
}

impl Ground {
    async fn new() -> Self {
        let database = database::fresh().await;
        let ground = Self::on(&database.url).await;
        Self { _kept: Some(database), ..ground }
    }

    /// On a migrated database that the caller keeps.
    async fn on(url: &str) -> Self {
        let pool = PgPool::connect(url).await.expect("a connection");
        Self { url: url.to_owned(), pool, work: Arc::default(), _kept: None }
    }

    /// One schedule, as another process would have it: with sessions of its own.
    fn schedules(&self, cron: &str, catch_up: CatchUp) -> Schedules {
        let pool = Database::parse(&self.url).expect("the harness's URL").pool("schedules", 2);
        let schedule = Schedule { name: NAME, cron: Cron::parse(cron).expect(cron), catch_up, work: self.work.clone() };
        Schedules::new(&pool, &Queue::start(pool.clone()), vec![schedule])
    }

    /// A row of the ledger for each fire so far, in the order of their times.
    async fn fires(&self) -> Vec<Fired> {
        let query = "SELECT fire_time, kind, passed_over, jobs, extract(epoch FROM fired_at - fire_time)::float8 AS lag
                     FROM schedule_fires ORDER BY fire_time";
        sqlx::query_as(query).fetch_all(&self.pool).await.expect("the ledger")
    }

    /// Waits for so many fires.
    async fn fired(&self, count: usize) -> Vec<Fired> {
        eventually("it has fired", SOON, async || self.fires().await.len() >= count).await;
        self.fires().await
    }

    async fn value<T>(&self, query: &str) -> T
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

    /// Every fire has its one job, and no job is without its fire.
    async fn assert_jobs(&self) {
        let query = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'scripted'";
        let fires = self.fires().await;
        assert_eq!(self.value::<i64>(query).await, fires.iter().filter(|fire| fire.jobs == 1).count() as i64);
        assert!(fires.iter().all(|fire| fire.jobs == i32::from(fire.kind != "skipped")), "{fires:?}");
    }
}

#[derive(Debug, Clone, sqlx::FromRow)]
struct Fired {
    fire_time: OffsetDateTime,
    kind: String,
    passed_over: i32,
    jobs: i32,
    lag: f64,
}

/// A scheduler as a worker runs it.
struct Ticking {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Ticking {
    fn start(schedules: Schedules, timing: Timing) -> Self {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(schedules.run(timing, stop.clone())), stop }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task).await.expect("it stops").expect("it does not panic");
    }
}

/// Every nominal time from the first to the last, each once.
fn assert_each_second(fires: &[Fired]) {
    let times: Vec<i64> = fires.iter().map(|fire| fire.fire_time.unix_timestamp()).collect();
    let all: Vec<i64> = (times[0]..times[0] + times.len() as i64).collect();
    assert_eq!(times, all);
    assert!(fires.iter().all(|fire| fire.fire_time.nanosecond() == 0 && fire.passed_over == 0), "{fires:?}");
}
