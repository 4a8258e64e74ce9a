//! The worker of a process: its job kinds, its start and its stop.

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
    acknowledge::{Acknowledger, DeferredWrites},
    cancel::Cancellations,
    claim::Claimer,
    cleaner::Cleaner,
    counts::Counts,
    discard::Discard,
    engine::{self, Handler},
    fair::{KeyedClaims, Sharing},
    heartbeat::{self, Report},
    in_flight::InFlight,
    job::{Job, Policy},
    lease::Lease,
    lost_claims::LostClaimFinder,
    metrics,
    poller::Poller,
    refused::RefusedJobs,
    runner::{self, RunnerParts},
    timing::Timing,
    watchdog,
    worker_status::WorkerStatus,
    write_results::ResultWriter,
};
use runtime::{db::Database, error::Error, shutdown::Shutdown};

/// Sessions for claims, polls and results. Each queue or task uses one at a time, and none is held while a handler
/// runs.
const SESSIONS: u32 = 6;
/// How long the last results may take to reach the database after the grace period. It keeps the whole stop below 30 s.
const LAST_WRITES: Duration = Duration::from_secs(3);

type MakeHandler = Box<dyn FnOnce(RunnerParts) -> (Handler, Arc<dyn Discard>) + Send>;

/// The job kinds that a worker runs.
#[derive(Default)]
pub struct Registry(Vec<Entry>);

struct Entry {
    name: &'static str,
    concurrency: usize,
    deadline: Duration,
    sharing: Sharing,
    handler: MakeHandler,
}

impl Registry {
    /// Adds a job kind, with the context of its runs.
    #[must_use]
    pub fn job<J: Job>(mut self, context: J::Context) -> Self {
        let policy: Policy = J::policy(&context);
        self.0.push(Entry {
            name: J::NAME,
            concurrency: policy.concurrency.clamp(1, Semaphore::MAX_PERMITS),
            deadline: policy.deadline,
            sharing: Sharing { fair: policy.fair, per_key: policy.per_key },
            handler: Box::new(move |parts| runner::handler::<J>(context, policy, parts)),
        });
        self
    }

    /// The names of the kinds, in the order of registration.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|entry| entry.name).collect()
    }
}

/// A running worker.
pub struct Worker {
    /// Unique for each start of a process, so that a dead worker is never mistaken for its successor.
    pub name: Arc<str>,
    lease: Arc<Lease>,
    running: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Worker {
    /// Starts to claim and run jobs. `shutdown.drain` stops it gracefully. If a part of the worker fails, it cancels
    /// `shutdown.drain` at once, so that the grace period of the process limits the runs that go on.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        database: &Database,
        timing: Timing,
        registry: Registry,
        shutdown: &Shutdown,
    ) -> Result<Self, std::io::Error> {
        let name: Arc<str> = name().into();
        // An operator may drain this worker alone; the process goes on.
        let drain = shutdown.drain.child_token();
        let stop_heartbeat = CancellationToken::new();
        let report = Report { status: Arc::new(WorkerStatus::new(drain.clone())), counts: Counts::default(), drain };
        let (queues, stop) = (registry.names(), stop_heartbeat.clone());
        let (lease, thread) = heartbeat::start(database.clone(), name.clone(), queues, timing, report.clone(), stop)?;
        let status = report.status.clone();
        let limit = move || Some(status.longest_deadline_in_flight()?.saturating_add(timing.lease));
        let watchdog = watchdog::start(tokio::runtime::Handle::current(), limit)?;
        let run = run(database.clone(), name.clone(), timing, registry, lease.clone(), report, shutdown.clone());
        let process = shutdown.drain.clone();
        let running = tokio::spawn(async move {
            let result = run_with_heartbeat(run, &thread, timing.heartbeat, &process).await;
            // The lease is kept until the last result is written.
            stop_heartbeat.cancel();
            drop(watchdog);
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            result
        });
        Ok(Self { name, lease, running })
    }

    /// Returns a check of whether this worker may claim: whether its lease is valid.
    pub fn is_ready(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let lease = self.lease.clone();
        move || lease.is_valid()
    }

    /// Waits until the worker has stopped.
    ///
    /// # Errors
    /// When a part of the worker ended without a stop.
    pub async fn stopped(self) -> Result<(), Error> {
        self.running.await.unwrap_or_else(|error| Err(Error::Internal(format!("worker: {error}"))))
    }
}

/// Creates a worker's name: the end of the host name, the process id, and 40 random bits for this start. It is written
/// into every claimed job, so it is short: 20 characters less save 95 bytes of WAL and 0.6 us per job.
pub(crate) fn name() -> String {
    const HOST: usize = 24;
    let host = nix::unistd::gethostname().map_or_else(|_| "host".into(), |name| name.to_string_lossy().into_owned());
    // Orchestrators distinguish their hosts by the end of the name.
    let host: String = host.chars().skip(host.chars().count().saturating_sub(HOST)).collect();
    let start = Ulid::generate().to_string();
    format!("{host}-{}-{}", std::process::id(), &start[start.len() - 8..])
}

/// Runs the parts of a worker until they end. If the thread of the heartbeat ends first, the process is drained and an error
/// is returned: without heartbeats the lease expires, and the results of its jobs are dropped. The thread is checked once
/// per `every`.
async fn run_with_heartbeat(
    run: impl Future<Output = Result<(), Error>>,
    heartbeat: &std::thread::JoinHandle<()>,
    every: Duration,
    process: &CancellationToken,
) -> Result<(), Error> {
    let heartbeat_ended = async {
        while !heartbeat.is_finished() {
            tokio::time::sleep(every).await;
        }
    };
    tokio::pin!(run);
    tokio::select! {
        result = &mut run => return result,
        () = heartbeat_ended => {}
    }
    tracing::error!("the heartbeat of the worker stopped by itself; draining the process");
    process.cancel();
    run.await.and(Err(Error::Internal("the heartbeat of the worker stopped by itself".into())))
}

/// Runs all parts of a worker until `report.drain`, and returns when the last result is written. `shutdown` is that of the
/// process.
async fn run(
    database: Database,
    name: Arc<str>,
    timing: Timing,
    registry: Registry,
    lease: Arc<Lease>,
    report: Report,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let started = Instant::now();
    let pool = database.pool("queue", SESSIONS);
    let (results, results_out) = mpsc::unbounded_channel();
    let (process, stop) = (shutdown.drain, report.drain.clone());
    let (abandon, runs_ended) = (CancellationToken::new(), CancellationToken::new());
    let cancellations = Arc::new(Cancellations::new(pool.clone()));
    let (mut engines, mut background) = (JoinSet::new(), JoinSet::new());
    let poll_request = Arc::new(Notify::new());
    let (mut signals, mut in_flight, mut limited) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut discards = HashMap::new();
    for Entry { name: queue, concurrency, deadline, sharing, handler } in registry.0 {
        metrics::zero(queue);
        let (jobs, jobs_out) = mpsc::channel(concurrency.min(1024));
        let claimer = Claimer {
            pool: pool.clone(),
            worker: name.clone(),
            queue,
            slots: Arc::new(Semaphore::new(concurrency)),
            in_flight: InFlight::default(),
            lease: lease.clone(),
            status: report.status.clone(),
            signal: Arc::default(),
            poll_request: poll_request.clone(),
            keyed: KeyedClaims::new(sharing),
            refused: RefusedJobs::new("claim"),
            jobs,
            stop: stop.clone(),
            now: shutdown.now.clone(),
        };
        report.status.add_queue(queue, concurrency, deadline, sharing, claimer.in_flight.clone());
        signals.insert(queue, claimer.signal.clone());
        if sharing.per_key.is_some() {
            limited.insert(queue, claimer.signal.clone());
        }
        in_flight.insert(queue, claimer.in_flight.clone());
        let (handler, discard) = handler(RunnerParts {
            pool: pool.clone(),
            worker: name.clone(),
            results: results.clone(),
            give_back: shutdown.now.clone(),
            cancellations: cancellations.clone(),
            counts: report.counts.of(queue),
        });
        discards.insert(queue, discard);
        engines.spawn(engine::run(queue, jobs_out, handler));
        engines.spawn(async move {
            claimer.run().await;
            Ok(())
        });
    }
    drop(results);
    let lost_claims = LostClaimFinder {
        pool: pool.clone(),
        worker: name.clone(),
        lease: timing.lease,
        in_flight: in_flight.clone(),
        signals: signals.clone(),
        stop: stop.clone(),
    };
    background.spawn(lost_claims.run());
    let poller = Poller {
        pool: pool.clone(),
        interval: timing.poll,
        signals,
        poll_request: poll_request.clone(),
        cancellations: cancellations.clone(),
        status: report.status.clone(),
        stop: stop.clone(),
    };
    background.spawn(poller.run(database));
    let queues = in_flight.keys().map(|queue| (*queue).to_owned()).collect();
    background.spawn(Cleaner { pool: pool.clone(), retention: timing.retention, queues, stop: stop.clone() }.run());
    // Operators also cancel what runs during a drain.
    background.spawn(cancellations.watch(timing.heartbeat, runs_ended.clone()));
    let acknowledger = Acknowledger {
        writer: ResultWriter { pool: pool.clone(), worker: name.clone() },
        in_flight,
        discards,
        limited,
        poll_request,
        abandon: abandon.clone(),
        deferred: DeferredWrites::default(),
        counts: report.counts.clone(),
    };
    background.spawn(acknowledger.run(results_out));
    tracing::info!(worker = &*name, "worker started");

    let engines = async {
        let failed = join_parts(engines, &stop, &process, |ended| ended.err().map(|error| error.to_string())).await;
        runs_ended.cancel();
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WRITES).await;
            abandon.cancel();
        });
        (failed, Instant::now())
    };
    let background = join_parts(background, &stop, &process, |()| None);
    let ((engine_failed, stopping), failed) = tokio::join!(engines, background);
    pool.close().await;
    tracing::info!(worker = &*name, up = ?started.elapsed(), last_writes = ?stopping.elapsed(), "worker stopped");
    engine_failed.or(failed).map_or(Ok(()), Err)
}

/// Waits for parts of the worker. If one fails, or ends before `stop`, the process is drained and the error is returned: a
/// partly running worker would keep jobs that it cannot finish. The grace period of the process limits their runs, and a
/// supervisor restarts it. `process` is the parent of `stop`.
async fn join_parts<T: 'static>(
    mut parts: JoinSet<T>,
    stop: &CancellationToken,
    process: &CancellationToken,
    error_of: impl Fn(T) -> Option<String>,
) -> Option<Error> {
    let mut failed = None;
    while let Some(ended) = parts.join_next().await {
        let problem = match ended.map(&error_of) {
            Ok(None) if stop.is_cancelled() => continue,
            Ok(None) => "it stopped by itself".to_owned(),
            Ok(Some(error)) => error,
            Err(error) => error.to_string(),
        };
        tracing::error!(problem, "a part of the worker failed; draining the process");
        process.cancel();
        failed = Some(Error::Internal(problem));
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_before_the_stop_drains_the_process() {
        for panics in [true, false] {
            let process = CancellationToken::new();
            let stop = process.child_token();
            let mut parts = JoinSet::new();
            parts.spawn(stop.clone().cancelled_owned());
            parts.spawn(async move { assert!(!panics, "a fault") });
            let failed = join_parts(parts, &stop, &process, |()| None).await;
            let failed = failed.map(|error| error.to_string()).unwrap_or_default();
            let expected = if panics { "panicked" } else { "it stopped by itself" };
            assert!(process.is_cancelled() && failed.contains(expected), "{failed}");
        }
    }

    /// As when an operator drains one worker of a process.
    #[tokio::test]
    async fn a_part_that_fails_after_the_stop_drains_the_process() {
        let process = CancellationToken::new();
        let stop = process.child_token();
        stop.cancel();
        let mut parts = JoinSet::new();
        parts.spawn(async { panic!("a fault") });
        assert!(join_parts(parts, &stop, &process, |()| None).await.is_some() && process.is_cancelled());
    }

    #[tokio::test]
    async fn parts_that_end_at_the_stop_are_no_failure() {
        let process = CancellationToken::new();
        let stop = process.child_token();
        let mut parts = JoinSet::new();
        parts.spawn(stop.clone().cancelled_owned());
        stop.cancel();
        assert!(join_parts(parts, &stop, &process, |()| None).await.is_none() && !process.is_cancelled());
    }

    #[tokio::test]
    async fn the_end_of_the_heartbeat_drains_the_process() {
        let process = CancellationToken::new();
        let stop = process.child_token();
        let run = async move {
            stop.cancelled().await;
            Ok(())
        };
        let heartbeat = std::thread::spawn(|| {});
        let ended = run_with_heartbeat(run, &heartbeat, Duration::from_millis(1), &process).await;
        assert!(ended.is_err() && process.is_cancelled());
    }

    #[tokio::test]
    async fn the_end_of_a_run_before_its_heartbeat_is_no_failure() {
        let process = CancellationToken::new();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let heartbeat = std::thread::spawn(move || wait.iter().for_each(drop));
        let run = std::future::ready(Ok(()));
        let ended = run_with_heartbeat(run, &heartbeat, Duration::from_millis(1), &process).await;
        assert!(ended.is_ok() && !process.is_cancelled());
        drop(end);
    }
}
