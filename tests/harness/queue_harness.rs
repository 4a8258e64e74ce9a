//! The queue under test, with scripted jobs and a record of their runs.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use queue::{
    Failure, Job, NewJob, Outcome, Policy, Queue, Registry, Retention, Run, Timing, Worker, enqueue,
    operator::audit::{Order, Via},
    retry::Backoff,
};
use runtime::{db::Database, shutdown::Shutdown};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Row};
use tokio::sync::Semaphore;

use super::{
    database::{self, TestDatabase},
    eventually::{eventually, eventually_or},
};

/// Short durations, so that tests are fast and do not depend on the shipped values. The lease is long, so that no
/// worker loses it on a busy machine. The cleaner has no pass that deletes, because passes come at random times.
pub(crate) const FAST: Timing = Timing {
    heartbeat: Duration::from_millis(200),
    lease: Duration::from_secs(20),
    rescue: Duration::from_millis(100),
    poll: Duration::from_millis(50),
    retention: Retention { every: Duration::from_secs(365 * 24 * 3600), ..Retention::DEFAULT },
};

/// For tests in which a lease expires.
pub(crate) const SHORT_LEASE: Timing = Timing { lease: Duration::from_secs(1), ..FAST };

/// For tests in which live workers watch each other for longer than a lease. A stall of some seconds ends none.
pub(crate) const WATCHED_LEASE: Timing = Timing { lease: Duration::from_secs(5), ..FAST };

/// The order of an operator.
pub(crate) fn order() -> Order {
    Order::new("ada", Via::Cli, "the processor is down").expect("valid")
}

/// An interval longer than any test: nothing in the test was found by polling.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

/// What a run does; durations are in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Step {
    Done,
    Fail,
    /// Fails with this error.
    FailWith(String),
    /// Fails, and asks to wait at least this long.
    FailWithDelay(u64),
    Reject,
    /// Rejects the job with this reason.
    RejectWith(String),
    Snooze(u64),
    /// Snoozes with this reason.
    SnoozeBecause(u64, String),
    Panic,
    /// Panics with this message.
    PanicWith(String),
    /// Never ends unless it is cancelled.
    Hang,
    /// Blocks its thread.
    Block(u64),
    /// Waits for a permit of [`ScriptedJobs::gate`], then ends as done.
    Wait,
    /// Waits for a permit of [`ScriptedJobs::gate`], then does this step.
    WaitThen(Box<Step>),
}

/// A job that does one step per run. Further runs repeat the last step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ScriptedJob {
    pub name: String,
    pub steps: Vec<Step>,
}

/// A recorded run of a scripted job.
#[derive(Debug, Clone)]
pub(crate) struct RecordedRun {
    pub name: String,
    pub run: Run,
}

/// The state that scripted jobs share with their test.
#[derive(Clone)]
pub(crate) struct ScriptedJobs {
    pub policy: Policy,
    pub gate: Arc<Semaphore>,
    runs: Arc<Mutex<Vec<RecordedRun>>>,
    discarded: Arc<Mutex<Vec<(String, String)>>>,
}

impl ScriptedJobs {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, gate: Arc::new(Semaphore::new(0)), runs: Arc::default(), discarded: Arc::default() }
    }

    /// All runs so far.
    pub(crate) fn runs(&self) -> Vec<RecordedRun> {
        self.runs.lock().unwrap().clone()
    }

    /// The number of runs of one job so far.
    pub(crate) fn runs_of(&self, name: &str) -> usize {
        self.runs().iter().filter(|run| run.name == name).count()
    }

    /// The discarded jobs with their reasons.
    pub(crate) fn discarded(&self) -> Vec<(String, String)> {
        self.discarded.lock().unwrap().clone()
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
        scripted.runs.lock().unwrap().push(RecordedRun { name: self.name.clone(), run });
        let mut step = self.steps.get(earlier).or(self.steps.last()).unwrap_or(&Step::Done);
        if let Step::WaitThen(then) = step {
            scripted.gate.acquire().await?.forget();
            step = then;
        }
        match step {
            Step::Done => {}
            Step::Fail => return Err(Failure::new(format!("failed in run {}", earlier + 1))),
            Step::FailWith(error) => return Err(Failure::new(error)),
            Step::FailWithDelay(millis) => {
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

    /// Fails the first time for the job named `hard to discard`.
    async fn on_discard(self, scripted: ScriptedJobs, reason: String) -> Result<(), Failure> {
        let mut discarded = scripted.discarded.lock().unwrap();
        let fails = self.name == "hard to discard" && discarded.is_empty();
        discarded.push((self.name, reason));
        if fails { Err(Failure::new("its record cannot be reached")) } else { Ok(()) }
    }
}

/// Few attempts and short waits. The deadline is long, because runs wait for their test, however slow the machine is.
pub(crate) fn quick_policy() -> Policy {
    Policy {
        attempts: 3,
        backoff: Backoff { base: Duration::from_millis(20), cap: Duration::from_millis(100) },
        deadline: Duration::from_secs(300),
        concurrency: 10,
        ..Policy::default()
    }
}

/// A database with its queue, which starts workers and inspects jobs.
pub(crate) struct QueueHarness {
    pub pool: PgPool,
    pub queue: Queue,
    pub database: Database,
    /// Removed with the harness.
    _test_database: Option<TestDatabase>,
}

/// A worker inside the test process.
pub(crate) struct RunningWorker {
    pub worker: Worker,
    pub shutdown: Shutdown,
}

impl QueueHarness {
    pub(crate) async fn start() -> Self {
        let database = database::fresh().await;
        let harness = Self::on_database(&database.url).await;
        Self { _test_database: Some(database), ..harness }
    }

    /// Uses a migrated database that the caller owns.
    pub(crate) async fn on_database(url: &str) -> Self {
        let pool = PgPool::connect(url).await.expect("a connection");
        let database = Database::parse(url).expect("the harness's URL");
        Self { queue: Queue::start(pool.clone().into()), pool, database, _test_database: None }
    }

    /// Enqueues a job that is due now.
    pub(crate) async fn enqueue(&self, name: &str, steps: &[Step]) {
        self.enqueue_as(name, steps, |job| job).await;
    }

    /// Enqueues a job after `change` has modified it.
    pub(crate) async fn enqueue_as(&self, name: &str, steps: &[Step], change: impl FnOnce(NewJob) -> NewJob) {
        let mut tx = self.queue.begin().await.expect("a transaction");
        let job = NewJob::of(&ScriptedJob { name: name.into(), steps: steps.to_vec() }).expect("a payload");
        enqueue(&mut tx, &[change(job)]).await.expect("an enqueued job");
        tx.commit().await.expect("a commit");
    }

    /// Starts a worker for scripted jobs.
    pub(crate) fn start_worker(&self, scripted: &ScriptedJobs, timing: Timing) -> RunningWorker {
        let shutdown = Shutdown::default();
        let registry = Registry::default().job::<ScriptedJob>(scripted.clone());
        let worker = Worker::start(&self.database, timing, registry, &shutdown).expect("a worker");
        RunningWorker { worker, shutdown }
    }

    /// Runs a worker until every job has finished.
    pub(crate) async fn run_all(&self, scripted: &ScriptedJobs) {
        let running = self.start_worker(scripted, FAST);
        self.wait_until(
            "every job has finished",
            "NOT EXISTS (SELECT FROM apalis.jobs WHERE status IN ('Pending', 'Running'))",
        )
        .await;
        running.stop().await;
    }

    /// Waits until a condition in SQL holds. If it never does, the error shows the jobs and the workers.
    pub(crate) async fn wait_until(&self, what: &str, condition: &str) {
        let query = format!("SELECT {condition}");
        let value = async |query: &str| -> Option<String> {
            let query = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT ({query})::text")));
            query.fetch_one(&self.pool).await.expect("a value")
        };
        let state = async || {
            let jobs = "SELECT json_agg(j) FROM (SELECT id, convert_from(job, 'UTF8') AS job, status, attempts, failures, crashes,
                        run_at, lock_by, lock_at, errors FROM apalis.jobs WHERE status <> 'Done' LIMIT 20) AS j";
            let workers = "SELECT json_agg(w) FROM (SELECT * FROM apalis.workers) AS w";
            format!("\njobs: {:?}\nworkers: {:?}", value(jobs).await, value(workers).await)
        };
        let holds = async || value(&query).await.as_deref() == Some("true");
        eventually_or(what, Duration::from_secs(60), holds, state).await;
    }

    /// Waits until the worker has received every notification that was sent so far.
    pub(crate) async fn wait_until_idle(&self) {
        self.wait_for_heartbeats(1).await;
    }

    /// Waits until every worker has renewed its lease `times` times. Does not depend on any clock.
    pub(crate) async fn wait_for_heartbeats(&self, times: u32) {
        let versions = "SELECT array_agg(id || ':' || xmin ORDER BY id) FROM apalis.workers";
        let versions = async || -> Vec<String> {
            let found: Option<Vec<String>> = sqlx::query_scalar(versions).fetch_one(&self.pool).await.expect("rows");
            found.unwrap_or_default()
        };
        for _ in 0..times {
            let before = versions().await;
            eventually("every worker has renewed its lease", Duration::from_secs(20), async || {
                let now = versions().await;
                !now.is_empty() && before.iter().all(|old| !now.contains(old))
            })
            .await;
        }
    }

    /// Returns the row of the job with this name.
    pub(crate) async fn row(&self, name: &str) -> JobRow {
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

    /// Executes SQL that no worker knows about, and returns the number of affected rows.
    pub(crate) async fn execute(&self, sql: &str) -> u64 {
        let done = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(&self.pool).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected()
    }
}

/// A row of `apalis.jobs`.
#[derive(Debug)]
pub(crate) struct JobRow {
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
    /// Drains the worker and waits for its end.
    pub(crate) async fn stop(self) {
        self.shutdown.drain.cancel();
        self.wait_for_end().await;
    }

    /// Stops the worker without waiting for its runs, and waits for its end.
    pub(crate) async fn abort(self) {
        self.shutdown.drain.cancel();
        self.shutdown.now.cancel();
        self.wait_for_end().await;
    }

    /// Waits until the worker has ended without an error.
    pub(crate) async fn wait_for_end(self) {
        tokio::time::timeout(Duration::from_secs(20), self.worker.stopped())
            .await
            .expect("the worker stops")
            .expect("the worker ends without an error");
    }
}
