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
pub enum Step {
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
    /// Waits for a permit of [`ScriptedJobs::gate`], and is done.
    Wait,
    /// Waits for a permit of [`ScriptedJobs::gate`], and does that.
    WaitThen(Box<Step>),
}

/// A job that does one step a run; the last one for every run that is left.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScriptedJob {
    pub name: String,
    pub steps: Vec<Step>,
}

/// One run, as its job saw it.
#[derive(Debug, Clone)]
pub struct Ran {
    pub name: String,
    pub run: Run,
}

/// What scripted jobs share with their test.
#[derive(Clone)]
pub struct ScriptedJobs {
    pub policy: Policy,
    pub gate: Arc<Semaphore>,
    ran: Arc<Mutex<Vec<Ran>>>,
    buried: Arc<Mutex<Vec<(String, String)>>>,
}

impl ScriptedJobs {
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

impl Job for ScriptedJob {
    const NAME: &'static str = "scripted";
    type Context = ScriptedJobs;

    fn policy(scripted: &ScriptedJobs) -> Policy {
        scripted.policy.clone()
    }

    async fn run(self, scripted: ScriptedJobs, run: Run) -> Result<Outcome, Failure> {
        let earlier = scripted.runs_of(&self.name);
        scripted.ran.lock().unwrap().push(Ran { name: self.name.clone(), run });
        let mut step = self.steps.get(earlier).or(self.steps.last()).unwrap_or(&Step::Done);
        if let Step::WaitThen(then) = step {
            scripted.gate.acquire().await?.forget();
            step = then;
        }
        match step {
            Step::Done => {}
            Step::Fail => return Err(Failure::new(format!("failed in run {}", earlier + 1))),
            Step::FailWith(error) => return Err(Failure::new(error)),
            Step::FailFor(millis) => {
                return Err(Failure::new("asked to wait").not_before(Duration::from_millis(*millis)));
            }
            Step::Reject => return Ok(Outcome::Reject("rejected".into())),
            Step::RejectWith(reason) => return Ok(Outcome::Reject(reason.clone())),
            Step::SnoozeBecause(millis, reason) => {
                return Ok(Outcome::SnoozeBecause(Duration::from_millis(*millis), reason.clone()));
            }
            Step::PanicWith(message) => panic!("{message}"),
            Step::Snooze(millis) => return Ok(Outcome::Snooze(Duration::from_millis(*millis))),
            Step::Panic => panic!("a panic of the script"),
            Step::Hang => std::future::pending().await,
            Step::Block(millis) => std::thread::sleep(Duration::from_millis(*millis)),
            Step::Wait | Step::WaitThen(_) => scripted.gate.acquire().await?.forget(),
        }
        Ok(Outcome::Done)
    }

    /// Fails the first time for a job that is called so.
    async fn bury(self, scripted: ScriptedJobs, reason: String) -> Result<(), Failure> {
        let mut buried = scripted.buried.lock().unwrap();
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
pub struct QueueHarness {
    pub pool: PgPool,
    pub queue: Queue,
    pub database: Database,
    _kept: Option<TestDatabase>,
}

/// A worker of this process.
pub struct RunningWorker {
    pub worker: Worker,
    pub shutdown: Shutdown,
}

impl QueueHarness {
    pub async fn start() -> Self {
        let kept = database::fresh().await;
        let harness = Self::on_database(&kept.url).await;
        Self { _kept: Some(kept), ..harness }
    }

    /// On a migrated database that the caller keeps.
    pub async fn on_database(url: &str) -> Self {
        let pool = PgPool::connect(url).await.expect("a connection");
        let database = Database::parse(url).expect("the harness's URL");
        Self { queue: Queue::start(pool.clone()), pool, database, _kept: None }
    }

    /// Enqueues a job that is due now.
    pub async fn enqueue(&self, name: &str, steps: &[Step]) {
        self.enqueue_as(name, steps, |job| job).await;
    }

    /// Enqueues a job, changed before.
    pub async fn enqueue_as(&self, name: &str, steps: &[Step], change: impl FnOnce(NewJob) -> NewJob) {
        let mut tx = self.queue.begin().await.expect("a transaction");
        let job = NewJob::of(&ScriptedJob { name: name.into(), steps: steps.to_vec() }).expect("a payload");
        enqueue(&mut tx, &[change(job)]).await.expect("an enqueued job");
        tx.commit().await.expect("a commit");
    }

    /// Starts a worker for scripted jobs.
    pub fn worker(&self, scripted: &ScriptedJobs, timing: Timing) -> RunningWorker {
        let shutdown = Shutdown::default();
        let registry = Registry::default().job::<ScriptedJob>(scripted.clone());
        let worker = Worker::start(&self.database, timing, registry, &shutdown).expect("a worker");
        RunningWorker { worker, shutdown }
    }

    /// Runs everything that is or becomes due, and makes sure that nothing is left but what is finished.
    pub async fn run_all(&self, scripted: &ScriptedJobs) {
        let running = self.worker(scripted, FAST);
        self.wait_until(
            "nothing is left to run",
            "NOT EXISTS (SELECT FROM apalis.jobs WHERE status IN ('Pending', 'Running'))",
        )
        .await;
        running.stop().await;
    }

    /// Waits until a condition in SQL holds.
    pub async fn wait_until(&self, what: &str, condition: &str) {
        let query = format!("SELECT {condition}");
        eventually(what, Duration::from_secs(60), async || {
            sqlx::query_scalar(sqlx::AssertSqlSafe(query.clone())).fetch_one(&self.pool).await.expect("a condition")
        })
        .await;
    }

    /// Waits until the worker has nothing on its way any more: every notification sent so far has been heard.
    pub async fn wait_until_idle(&self) {
        self.wait_for_heartbeats(1).await;
    }

    /// Waits until every worker has renewed its lease so many times, whatever any clock says.
    pub async fn wait_for_heartbeats(&self, times: u32) {
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
    pub async fn row(&self, name: &str) -> JobRow {
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
        JobRow {
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
pub struct JobRow {
    pub status: String,
    pub attempts: i32,
    pub failures: i32,
    pub crashes: i32,
    pub errors: i32,
    pub last_error: Option<String>,
    pub lock_by: Option<String>,
    pub due_in: f64,
}

impl RunningWorker {
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
