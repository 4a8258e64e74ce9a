//! The worker under test: the product's worker with two more kinds of jobs, one of a schedule and one that does harm.

use std::{sync::Arc, time::Duration};

use anyhow::{Error, Result};
use futures_util::future::BoxFuture;
use jobs::app::App;
use queue::{
    Failure, Job, NewJob, Outcome, Policy, Queue, Run, Tx, Worker,
    retry::Backoff,
    schedule::{self, CatchUp, Cron, Schedule, Schedules, Work},
};
use runtime::{clients::http, error::Error as RuntimeError, shutdown, telemetry::Telemetry};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::task::{Limited, Reports, Task};

/// The variable with the URL of the processor.
pub(crate) const RECORDER: &str = "PROVE_RECORDER";
/// If this variable is set, the worker has no schedule, whose jobs would wake it every second.
pub(crate) const WITHOUT_SCHEDULE: &str = "PROVE_WITHOUT_SCHEDULE";
/// Every second.
const EVERY_SECOND: &str = "* * * * * *";
/// The limits of the additional jobs: short, so that a fault is over soon.
const DEADLINE: Duration = Duration::from_secs(2);

/// A job of the schedule. It reports its fire to the processor.
#[derive(Serialize, Deserialize)]
struct Tick {
    fire_time: i64,
}

/// Where jobs report.
#[derive(Clone)]
struct Recorder {
    http: reqwest::Client,
    url: String,
}

impl Job for Tick {
    const NAME: &'static str = "prove_tick";
    type Context = Recorder;

    fn policy(_: &Recorder) -> Policy {
        Policy {
            attempts: 1000,
            backoff: backoff(),
            deadline: Duration::from_secs(10),
            concurrency: 10,
            ..Policy::default()
        }
    }

    async fn run(self, recorder: Recorder, run: Run) -> Result<Outcome, Failure> {
        let report = recorder.http.post(&recorder.url).body(format!("{} {}", self.fire_time, run.id));
        report.send().await.and_then(reqwest::Response::error_for_status).map_err(Failure::new)?;
        Ok(Outcome::Done)
    }
}

/// The work of the schedule: one job a fire.
struct Ticks;

impl Work for Ticks {
    fn jobs<'a>(
        &'a self,
        _: &'a mut Tx,
        fire_time: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Vec<NewJob>, RuntimeError>> {
        Box::pin(async move { Ok(vec![NewJob::of(&Tick { fire_time: fire_time.unix_timestamp() })?]) })
    }
}

/// What a poison job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Poison {
    Panic,
    /// Ends the process.
    Abort,
    /// Blocks its thread, and never ends.
    Endless,
    /// Takes all memory.
    Allocate,
    /// Its result contains a character that PostgreSQL refuses.
    RefusedResult,
}

impl Poison {
    pub(crate) const ALL: [Self; 5] = [Self::Panic, Self::Abort, Self::Endless, Self::Allocate, Self::RefusedResult];
}

/// A job that does harm in every run.
#[derive(Serialize, Deserialize)]
pub(crate) struct PoisonJob {
    pub(crate) poison: Poison,
}

impl Job for PoisonJob {
    const NAME: &'static str = "prove_poison";
    type Context = ();

    fn policy((): &()) -> Policy {
        Policy { attempts: 3, backoff: backoff(), deadline: DEADLINE, concurrency: 4, ..Policy::default() }
    }

    async fn run(self, (): (), _: Run) -> Result<Outcome, Failure> {
        match self.poison {
            #[expect(clippy::panic, reason = "this is the fault")]
            Poison::Panic => panic!("poisoned"),
            Poison::Abort => std::process::abort(),
            Poison::Endless => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            Poison::Allocate => {
                let mut allocated = Vec::new();
                loop {
                    allocated.push(std::hint::black_box(vec![1_u8; 64 << 20]));
                }
            }
            Poison::RefusedResult => Err(Failure::new("a text with \0 inside")),
        }
    }
}

/// Jobs of the backlog: they do nothing.
#[derive(Serialize, Deserialize)]
struct Noop {}

impl Job for Noop {
    const NAME: &'static str = "prove_noop";
    type Context = ();

    async fn run(self, (): (), _: Run) -> Result<Outcome, Failure> {
        Ok(Outcome::Done)
    }
}

fn backoff() -> Backoff {
    Backoff { base: Duration::from_millis(50), cap: Duration::from_millis(500) }
}

/// Runs the product's worker with the additional jobs, until a stop signal arrives.
///
/// # Errors
/// When the configuration is wrong, the worker does not start, or it fails later.
pub async fn program() -> Result<()> {
    let config = worker::config::Config::from_env()?;
    let _telemetry = Telemetry::start(&config.jobs.telemetry, "worker").map_err(Error::msg)?;
    let shutdown = shutdown::Shutdown::on_signals(shutdown::GRACE)?;
    let app = App::start(&config.database, &config.jobs, "worker", &shutdown.drain)?;
    if !app.await_schema(&shutdown).await? {
        return Ok(());
    }
    let http = http::client(|limits| limits.timeout(DEADLINE))?;
    let url = std::env::var(RECORDER)?;
    let recorder = Recorder { http, url: format!("{url}/fired") };
    let registry = worker::registry::registry(&app).job::<Tick>(recorder).job::<PoisonJob>(()).job::<Noop>(());
    let reports = Reports::to(&url)?;
    let registry = registry.job::<Task>(reports.clone()).job::<Limited>(reports);
    let worker = Worker::start(&config.database, config.jobs.timing, registry, &shutdown)?;
    if std::env::var_os(WITHOUT_SCHEDULE).is_some() {
        return Ok(worker.stopped().await?);
    }
    let pool = config.database.pool("worker", 2);
    let cron = Cron::parse(EVERY_SECOND).map_err(Error::msg)?;
    let ticks = Schedule { name: Tick::NAME, cron, catch_up: CatchUp::All, work: Arc::new(Ticks) };
    let schedules = Schedules::new(&pool, &Queue::start(pool.clone()), vec![ticks]);
    // Quick checks, because a fault may hide a tick.
    let timing = schedule::Timing { check: Duration::from_secs(1), ..schedule::Timing::default() };
    tokio::spawn(schedules.run(timing, shutdown.drain.clone()));
    Ok(worker.stopped().await?)
}
