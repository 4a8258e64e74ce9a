//! A worker process's queues: which jobs it runs, how it starts, and how it stops.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use super::{
    acknowledge::{Acknowledger, Apart},
    cancel::Cancellations,
    claim::{ClaimErrors, Claimer, InFlight},
    cleaner::{Cleaner, Retention},
    engine::{self, Handler},
    heartbeat::{self, Lease},
    job::{Job, Policy},
    metrics,
    poller::Poller,
    result::RunResult,
    runner, watchdog,
    write_results::ResultWriter,
};
use runtime::{
    db::{self, Database},
    error::Error,
    shutdown::Shutdown,
};

/// Sessions for claims, looks and results: each is one at a time per queue or process, and none waits for handlers.
const SESSIONS: u32 = 6;
/// After the grace is over, results have this long to reach the database: the whole stop stays below 30 s.
const LAST_WRITES: Duration = Duration::from_secs(3);

/// The clockwork of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two renewals of the lease.
    pub heartbeat: Duration,
    /// A worker silent for this long has lost its jobs.
    pub lease: Duration,
    /// Between two looks for jobs of dead workers.
    pub rescue: Duration,
    /// Between two looks for due jobs when nothing is heard.
    pub poll: Duration,
    /// What is forgotten, and when.
    pub retention: Retention,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            rescue: Duration::from_secs(2),
            poll: Duration::from_millis(250),
            retention: Retention::SHIPPED,
        }
    }
}

type MakeHandler =
    Box<dyn FnOnce(mpsc::UnboundedSender<RunResult>, CancellationToken, Arc<Cancellations>) -> Handler + Send>;

/// The kinds of job that a worker runs.
#[derive(Default)]
pub struct Registry(Vec<Entry>);

struct Entry {
    name: &'static str,
    concurrency: usize,
    deadline: Duration,
    handler: MakeHandler,
}

impl Registry {
    /// Adds a kind of job, with what its runs need.
    #[must_use]
    pub fn job<J: Job>(mut self, context: J::Context) -> Self {
        let policy: Policy = J::policy(&context);
        self.0.push(Entry {
            name: J::NAME,
            concurrency: policy.concurrency.clamp(1, Semaphore::MAX_PERMITS),
            deadline: policy.deadline,
            handler: Box::new(move |results, give_back, cancellations| {
                runner::handler::<J>(context, policy, results, give_back, cancellations)
            }),
        });
        self
    }

    /// The names of the kinds, as registered.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|entry| entry.name).collect()
    }
}

/// A running worker.
pub struct Worker {
    /// Unique for each start of a process, so that a dead one is never mistaken for its successor.
    pub name: Arc<str>,
    lease: Arc<Lease>,
    running: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Worker {
    /// Starts claiming and running. `shutdown.drain` stops it in good order.
    ///
    /// # Errors
    /// When a thread beside the runtime cannot be started.
    pub fn start(
        database: &Database,
        timing: Timing,
        registry: Registry,
        shutdown: &Shutdown,
    ) -> Result<Self, std::io::Error> {
        let name: Arc<str> = name().into();
        let keep_lease = CancellationToken::new();
        let errors = Arc::<ClaimErrors>::default();
        let (queues, ends) = (registry.names(), keep_lease.clone());
        let (lease, thread) = heartbeat::keep(database.clone(), name.clone(), queues, timing, errors.clone(), ends)?;
        let longest = registry.0.iter().map(|entry| entry.deadline).max().unwrap_or_default();
        let pulse = watchdog::keep(tokio::runtime::Handle::current(), longest.saturating_add(timing.lease))?;
        let run = run(database.clone(), name.clone(), timing, registry, lease.clone(), errors, shutdown.clone());
        let running = tokio::spawn(async move {
            let result = run.await;
            // The lease outlives the last result.
            keep_lease.cancel();
            drop(pulse);
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            result
        });
        Ok(Self { name, lease, running })
    }

    /// Whether this worker may claim: its lease stands.
    pub fn is_ready(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let lease = self.lease.clone();
        move || lease.stands()
    }

    /// Waits for the stop.
    ///
    /// # Errors
    /// When a part of the worker ended without being told to.
    pub async fn stopped(self) -> Result<(), Error> {
        self.running.await.unwrap_or_else(|error| Err(Error::Internal(format!("worker: {error}"))))
    }
}

/// The host as far as it tells hosts apart, the process, and 40 random bits for this start of it. Short, since it is
/// written into every job that is claimed: 20 characters less are 95 bytes of log and 0.6 us for each.
fn name() -> String {
    const HOST: usize = 24;
    let host = nix::unistd::gethostname().map_or_else(|_| "host".into(), |name| name.to_string_lossy().into_owned());
    // Orchestrators tell their hosts apart at the end of the name.
    let host: String = host.chars().skip(host.chars().count().saturating_sub(HOST)).collect();
    let start = Ulid::generate().to_string();
    format!("{host}-{}-{}", std::process::id(), &start[start.len() - 8..])
}

async fn run(
    database: Database,
    name: Arc<str>,
    timing: Timing,
    registry: Registry,
    lease: Arc<Lease>,
    errors: Arc<ClaimErrors>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let started = Instant::now();
    let pool = database.pool("queue", SESSIONS);
    let (results, results_out) = mpsc::unbounded_channel();
    let (abandon, stop) = (CancellationToken::new(), shutdown.drain);
    let cancellations = Arc::new(Cancellations::new(pool.clone()));
    let (mut engines, mut helpers) = (JoinSet::new(), JoinSet::new());
    let look = Arc::new(Notify::new());
    let (mut signals, mut in_flight) = (HashMap::new(), HashMap::new());
    for Entry { name: queue, concurrency, handler, .. } in registry.0 {
        metrics::zero(queue);
        let (jobs, jobs_out) = mpsc::channel(concurrency.min(1024));
        let claimer = Claimer {
            pool: pool.clone(),
            worker: name.clone(),
            queue,
            slots: Arc::new(Semaphore::new(concurrency)),
            in_flight: InFlight::default(),
            lease: lease.clone(),
            errors: errors.clone(),
            signal: Arc::default(),
            look: look.clone(),
            jobs,
            stop: stop.clone(),
        };
        signals.insert(queue, claimer.signal.clone());
        in_flight.insert(queue, claimer.in_flight.clone());
        let handler = handler(results.clone(), shutdown.now.clone(), cancellations.clone());
        engines.spawn(engine::run(queue, jobs_out, handler));
        engines.spawn(async move {
            claimer.run().await;
            Ok(())
        });
    }
    drop(results);
    let pacer = Poller {
        pool: pool.clone(),
        poll: timing.poll,
        signals,
        look,
        cancellations: cancellations.clone(),
        stop: stop.clone(),
    };
    helpers.spawn(pacer.run(database));
    helpers.spawn(Cleaner { pool: pool.clone(), retention: timing.retention, stop: stop.clone() }.run());
    helpers.spawn({
        let stop = stop.clone();
        async move { cancellations.watch(timing.heartbeat, &stop).await }
    });
    let acknowledger = Acknowledger {
        writer: ResultWriter { pool: pool.clone(), worker: name.clone() },
        in_flight,
        abandon: abandon.clone(),
        apart: Apart::default(),
    };
    let written = tokio::spawn(acknowledger.run(results_out));
    tracing::info!(worker = &*name, "worker started");

    let mut failed = None;
    while let Some(ended) = engines.join_next().await {
        let problem = match ended {
            Ok(Ok(())) if stop.is_cancelled() => continue,
            Ok(Ok(())) => "a queue stopped by itself".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        // Half a worker would leave jobs in its name: the rest stops too, and whoever watches the process restarts it.
        tracing::error!(problem, "worker broken; stopping");
        stop.cancel();
        failed = Some(Error::Internal(problem));
    }
    let stopping = Instant::now();
    tokio::spawn(async move {
        tokio::time::sleep(LAST_WRITES).await;
        abandon.cancel();
    });
    let _ = written.await;
    while helpers.join_next().await.is_some() {}
    db::close(&pool).await;
    tracing::info!(worker = &*name, up = ?started.elapsed(), last_writes = ?stopping.elapsed(), "worker stopped");
    failed.map_or(Ok(()), Err)
}
