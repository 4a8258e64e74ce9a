//! A queue to play on: jobs that do what their script says, and a record of what they did.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jobs::{
    boot::{db::Database, shutdown::Shutdown},
    queue::{
        Failure, Job, NewJob, Outcome, Policy, Queue, Registry, Retention, Run, Timing, Worker, enqueue, retry::Backoff,
    },
};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Row};
use tokio::sync::Semaphore;

use super::{
    database::{self, TestDatabase},
    eventually,
};

/// Short by configuration: nothing of the queue may depend on the shipped values.
pub const FAST: Timing = Timing {
    heartbeat: Duration::from_millis(200),
    lease: Duration::from_secs(1),
    rescue: Duration::from_millis(100),
    poll: Duration::from_millis(50),
    retention: Retention::SHIPPED,
};

/// So rare that whatever happens in a test was not found by polling.
pub const NEVER: Duration = Duration::from_secs(3600);

/// What a run does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Act {
    Done,
    Fail,
    /// Fails with this error.
    FailWith(String),
    /// Fails, and wants to wait at least these milliseconds.
    FailFor(u64),
    Reject,
    /// With this reason.
    RejectWith(String),
    /// Milliseconds.
    Snooze(u64),
    /// Milliseconds, and the reason.
    SnoozeBecause(u64, String),
    Panic,
    /// With this message.
    PanicWith(String),
    /// Never ends by itself.
    Hang,
    /// Blocks its thread for these milliseconds.
    Block(u64),
    /// Waits for a permit of [`Stage::gate`], and is done.
    Wait,
    /// Waits for a permit of [`Stage::gate`], and does that.
    WaitThen(Box<Act>),
}

/// A job that does one act a run; the last one for every run that is left.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scripted {
    pub name: String,
    pub acts: Vec<Act>,
}

/// One run, as its job saw it.
#[derive(Debug, Clone)]
pub struct Ran {
    pub name: String,
    pub run: Run,
}

/// What scripted jobs share with their test.
#[derive(Clone)]
pub struct Stage {
    pub policy: Policy,
    pub gate: Arc<Semaphore>,
    ran: Arc<Mutex<Vec<Ran>>>,
    buried: Arc<Mutex<Vec<(String, String)>>>,
}

impl Stage {
    pub fn new(policy: Policy) -> Self {
        Self { policy, gate: Arc::new(Semaphore::new(0)), ran: Arc::default(), buried: Arc::default() }
    }

    /// All runs so far.
    pub fn ran(&self) -> Vec<Ran> {
        self.ran.lock().unwrap().clone()
    }

    /// The runs of one job so far.
    pub fn runs_of(&self, name: &str) -> usize {
        self.ran().iter().filter(|ran| ran.name == name).count()
    }

    /// Jobs that were given up, with the reasons.
    pub fn buried(&self) -> Vec<(String, String)> {
        self.buried.lock().unwrap().clone()
    }
}

impl Job for Scripted {
    const NAME: &'static str = "scripted";
    type Context = Stage;

    fn policy(stage: &Stage) -> Policy {
        stage.policy.clone()
    }

    async fn run(self, stage: Stage, run: Run) -> Result<Outcome, Failure> {
        let earlier = stage.runs_of(&self.name);
        stage.ran.lock().unwrap().push(Ran { name: self.name.clone(), run });
        let mut act = self.acts.get(earlier).or(self.acts.last()).unwrap_or(&Act::Done);
        if let Act::WaitThen(then) = act {
            stage.gate.acquire().await?.forget();
            act = then;
        }
        match act {
            Act::Done => {}
            Act::Fail => return Err(Failure::new(format!("failed in run {}", earlier + 1))),
            Act::FailWith(error) => return Err(Failure::new(error)),
            Act::FailFor(millis) => {
                return Err(Failure::new("asked to wait").not_before(Duration::from_millis(*millis)));
            }
            Act::Reject => return Ok(Outcome::Reject("rejected".into())),
            Act::RejectWith(reason) => return Ok(Outcome::Reject(reason.clone())),
            Act::SnoozeBecause(millis, reason) => {
                return Ok(Outcome::SnoozeBecause(Duration::from_millis(*millis), reason.clone()));
            }
            Act::PanicWith(message) => panic!("{message}"),
            Act::Snooze(millis) => return Ok(Outcome::Snooze(Duration::from_millis(*millis))),
            Act::Panic => panic!("a panic of the script"),
            Act::Hang => std::future::pending().await,
            Act::Block(millis) => std::thread::sleep(Duration::from_millis(*millis)),
            Act::Wait | Act::WaitThen(_) => stage.gate.acquire().await?.forget(),
        }
        Ok(Outcome::Done)
    }

    /// Fails the first time for a job that is called so.
    async fn bury(self, stage: Stage, reason: String) -> Result<(), Failure> {
        let mut buried = stage.buried.lock().unwrap();
        let fails = self.name == "hard to bury" && buried.is_empty();
        buried.push((self.name, reason));
        if fails { Err(Failure::new("its record cannot be reached")) } else { Ok(()) }
    }
}

/// Attempts and waits that a test has time for.
pub fn quick_policy() -> Policy {
    Policy {
        attempts: 3,
        backoff: Backoff { base: Duration::from_millis(20), cap: Duration::from_millis(100) },
        deadline: Duration::from_secs(30),
        concurrency: 10,
    }
}

/// A database with the enqueueing side of its queue.
pub struct Theatre {
    pub pool: PgPool,
    pub queue: Queue,
    pub database: Database,
    _kept: Option<TestDatabase>,
}

/// A worker of this process.
pub struct Running {
    pub worker: Worker,
    pub shutdown: Shutdown,
}

impl Theatre {
    pub async fn open() -> Self {
        let kept = database::fresh().await;
        let theatre = Self::on(&kept.url).await;
        Self { _kept: Some(kept), ..theatre }
    }

    /// On a migrated database that the caller keeps.
    pub async fn on(url: &str) -> Self {
        let pool = PgPool::connect(url).await.expect("a connection");
        let database = Database::parse(url).expect("the harness's URL");
        Self { queue: Queue::start(pool.clone()), pool, database, _kept: None }
    }

    /// Enqueues a job that is due now.
    pub async fn enqueue(&self, name: &str, acts: &[Act]) {
        self.enqueue_as(name, acts, |job| job).await;
    }

    /// Enqueues a job, changed before.
    pub async fn enqueue_as(&self, name: &str, acts: &[Act], change: impl FnOnce(NewJob) -> NewJob) {
        let mut tx = self.queue.begin().await.expect("a transaction");
        let job = NewJob::of(&Scripted { name: name.into(), acts: acts.to_vec() }).expect("a payload");
        enqueue(&mut tx, &[change(job)]).await.expect("an enqueued job");
        tx.commit().await.expect("a commit");
    }

    /// Starts a worker for scripted jobs.
    pub fn worker(&self, stage: &Stage, timing: Timing) -> Running {
        let shutdown = Shutdown::default();
        let registry = Registry::default().job::<Scripted>(stage.clone());
        let worker = Worker::start(&self.database, timing, registry, &shutdown).expect("a worker");
        Running { worker, shutdown }
    }

    /// Runs everything that is or becomes due, and makes sure that nothing is left but what is finished.
    pub async fn run_all(&self, stage: &Stage) {
        let running = self.worker(stage, FAST);
        self.until(
            "nothing is left to run",
            "NOT EXISTS (SELECT FROM apalis.jobs WHERE status IN ('Pending', 'Running'))",
        )
        .await;
        running.stop().await;
    }

    /// Waits until a condition in SQL holds.
    pub async fn until(&self, what: &str, condition: &str) {
        let query = format!("SELECT {condition}");
        eventually(what, Duration::from_secs(60), async || {
            sqlx::query_scalar(sqlx::AssertSqlSafe(query.clone())).fetch_one(&self.pool).await.expect("a condition")
        })
        .await;
    }

    /// Waits until the worker has nothing on its way any more: every notification sent so far has been heard.
    pub async fn until_idle(&self) {
        self.until_beaten(1).await;
    }

    /// Waits until every worker has renewed its lease so many times, whatever any clock says.
    pub async fn until_beaten(&self, times: u32) {
        let versions = "SELECT array_agg(id || ':' || xmin ORDER BY id) FROM apalis.workers";
        let versions = async || -> Vec<String> {
            let found: Option<Vec<String>> = sqlx::query_scalar(versions).fetch_one(&self.pool).await.expect("rows");
            found.unwrap_or_default()
        };
        for _ in 0..times {
            let before = versions().await;
            eventually("every worker has beaten", Duration::from_secs(20), async || {
                let now = versions().await;
                !now.is_empty() && before.iter().all(|old| !now.contains(old))
            })
            .await;
        }
    }

    /// State, claims, failures, crashes and errors of the job with this name.
    pub async fn row(&self, name: &str) -> Recorded {
        let row = sqlx::query(
            "SELECT status, attempts, failures, crashes, coalesce(jsonb_array_length(errors), 0) AS errors,
                    errors -> -1 ->> 'error' AS last_error, lock_by,
                    extract(epoch FROM run_at - clock_timestamp())::float8 AS due_in
             FROM apalis.jobs WHERE position($1 IN convert_from(job, 'UTF8')) > 0",
        )
        .bind(format!("\"name\":\"{name}\""))
        .fetch_one(&self.pool)
        .await
        .expect("one job of this name");
        Recorded {
            status: row.get("status"),
            attempts: row.get("attempts"),
            failures: row.get("failures"),
            crashes: row.get("crashes"),
            errors: row.get("errors"),
            last_error: row.get("last_error"),
            lock_by: row.get("lock_by"),
            due_in: row.get("due_in"),
        }
    }

    /// Changes the database behind everybody's back.
    pub async fn execute(&self, sql: &str) -> u64 {
        let done = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(&self.pool).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected()
    }
}

/// A job's row.
#[derive(Debug)]
pub struct Recorded {
    pub status: String,
    pub attempts: i32,
    pub failures: i32,
    pub crashes: i32,
    pub errors: i32,
    pub last_error: Option<String>,
    pub lock_by: Option<String>,
    pub due_in: f64,
}

impl Running {
    /// Stops it in good order.
    pub async fn stop(self) {
        self.shutdown.drain.cancel();
        self.stopped().await;
    }

    /// Waits for its end, which must be a good one.
    pub async fn stopped(self) {
        tokio::time::timeout(Duration::from_secs(20), self.worker.stopped())
            .await
            .expect("the worker stops")
            .expect("the worker stops in good order");
    }
}
