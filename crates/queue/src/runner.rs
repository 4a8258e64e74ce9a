//! Runs jobs: decodes the payload, runs it under a deadline, decides the disposition, and hands over the result.
//!
//! Each job runs in its own task, which also hands over its result. Jobs that were claimed together share what watches
//! them: one timer, and one registration for each signal that ends a run from outside.

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
};

use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{
    cancel::Cancellations,
    counts::QueueCounts,
    discard::{AbortOnDrop, Discard, Discarder},
    engine::Handler,
    in_flight::ClaimedJob,
    job::{Failure, Job, Outcome, Policy},
    metrics::Runs,
    payload::{decode, panic_text},
    result::{Disposition, RunResult},
    started_run::{Ended, Ending, StartedRun},
};
use runtime::{db::Pool, telemetry::scope::Scope};

/// A job is quarantined after this many consecutive crashes: it becomes a dead letter with the evidence instead of
/// running again, because it is likely to kill the next worker and every job in it.
///
/// One crash proves nothing. A worker that cannot reach the database for longer than its lease, or is killed, leaves a
/// crash on every job it held. Such an incident affects a job at most once, and only while it runs. A harmless job
/// would need three of them within its seconds or minutes of running. A job that kills its worker needs three runs, at
/// most three leases apart.
const MAX_CRASHES: i32 = 3;

/// What all runs of one job kind share.
struct Runner<J: Job> {
    discarder: Arc<Discarder<J>>,
    results: mpsc::UnboundedSender<RunResult>,
    cancellations: Arc<Cancellations>,
    counts: Arc<QueueCounts>,
    runs: Runs,
}

/// What the runner of a job kind needs from its worker.
pub(crate) struct RunnerParts {
    pub pool: Pool,
    pub worker: Arc<str>,
    pub results: mpsc::UnboundedSender<RunResult>,
    /// Cancelled when the grace period of a stop is over.
    pub give_back: CancellationToken,
    pub cancellations: Arc<Cancellations>,
    pub counts: Arc<QueueCounts>,
}

/// Creates the handler of one job kind, and what discards its jobs.
pub(crate) fn handler<J: Job>(context: J::Context, policy: Policy, parts: RunnerParts) -> (Handler, Arc<dyn Discard>) {
    let RunnerParts { pool, worker, results, give_back, cancellations, counts } = parts;
    let discarder = Arc::new(Discarder::<J> { context, policy, pool, worker, give_back });
    let discard = discarder.clone();
    let runner = Arc::new(Runner { discarder, results, cancellations, counts, runs: Runs::of(J::NAME) });
    let handler: Handler = Arc::new(move |jobs| {
        let runner = runner.clone();
        Box::pin(async move { runner.run_all(jobs).await })
    });
    (handler, discard)
}

impl<J: Job> Runner<J> {
    /// Runs jobs until each has handed over its result.
    async fn run_all(self: &Arc<Self>, jobs: Vec<ClaimedJob>) {
        self.counts.start(jobs.iter().map(|job| job.job.waited()));
        let batch = TaskTracker::new();
        let running = jobs.into_iter().map(|job| self.start(job, batch.token())).collect();
        batch.close();
        self.supervise(running, &batch).await;
    }

    /// Starts the task of a job.
    fn start(self: &Arc<Self>, job: ClaimedJob, batch: TaskTrackerToken) -> RunningJob {
        self.runs.wait.record(job.job.waited().max(0.0));
        let run = Arc::new(StartedRun::new(J::NAME, job, batch));
        let work = {
            // A handler that blocks its thread keeps this task, and must not keep the runner: the worker stops when no
            // runner can hand over a result.
            let (runner, context, run) = (Arc::downgrade(self), self.discarder.context.clone(), run.clone());
            async move {
                let ended = execute::<J>(context, &run).await;
                // The ending is gone if the run was ended from outside at the same moment.
                if let Some(ending) = run.take_ending()
                    && let Some(runner) = runner.upgrade()
                {
                    runner.conclude(&run, ended, ending).await;
                }
            }
        };
        let task = tokio::spawn(in_run(&run, work));
        RunningJob { run: Arc::downgrade(&run), task: AbortOnDrop(task.abort_handle()), is_watched: false }
    }

    /// Waits until all runs have ended. Ends a run from outside when an operator has cancelled its job, when it misses its
    /// deadline, or when it outlasts the grace period of a stop. This works even while a handler blocks its thread.
    async fn supervise(self: &Arc<Self>, mut running: Vec<RunningJob>, batch: &TaskTracker) {
        let (mut watching, mut concluding) = (JoinSet::new(), JoinSet::new());
        let mut requested = self.cancellations.subscribe();
        let (all_ended, deadline) = (batch.wait(), sleep(self.discarder.policy.deadline));
        let give_back = self.discarder.give_back.cancelled();
        tokio::pin!(all_ended, deadline, give_back);
        loop {
            tokio::select! {
                biased;
                () = &mut all_ended => return,
                Some(Ok(cancelled)) = watching.join_next() => {
                    if let Some(job) = running.get(cancelled) {
                        self.stop(job, Ended::Cancelled, &mut concluding);
                    }
                }
                () = &mut deadline => {
                    let error = format!("cancelled after its deadline of {:?}", self.discarder.policy.deadline);
                    let missed = || Ended::Failure(Failure::new(&error));
                    running.iter().for_each(|job| self.stop(job, missed(), &mut concluding));
                    break;
                }
                () = &mut give_back => {
                    running.iter().for_each(|job| self.stop(job, Ended::GracePeriodOver, &mut concluding));
                    break;
                }
                () = wait_for_requests(&mut requested, &running) => {
                    let requested = requested.borrow();
                    for (at, job) in running.iter_mut().enumerate() {
                        let Some(run) = job.find_requested(&requested) else { continue };
                        job.is_watched = true;
                        let cancellations = self.cancellations.clone();
                        watching.spawn(async move {
                            cancellations.wait_for_request(&run.job.id).await;
                            at
                        });
                    }
                }
            }
        }
        // The runs that were not ended from outside have just ended by themselves.
        all_ended.await;
    }

    /// Ends a run from outside, unless it has just ended by itself.
    fn stop(self: &Arc<Self>, job: &RunningJob, ended: Ended, concluding: &mut JoinSet<()>) {
        let Some(run) = job.run.upgrade() else { return };
        let Some(ending) = run.take_ending() else { return };
        job.task.0.abort();
        let (runner, scope) = (self.clone(), run.clone());
        concluding.spawn(in_run(&scope, async move { runner.conclude(&run, ended, ending).await }));
    }

    /// Decides what becomes of the job, and hands over the result.
    async fn conclude(&self, run: &Arc<StartedRun>, ended: Ended, ending: Ending) {
        let failures = run.failures().saturating_add(1);
        let disposition = match ended {
            Ended::Outcome(Outcome::Done) => Disposition::Done,
            Ended::Outcome(Outcome::Snooze(wait)) => Disposition::Snooze { wait, reason: None },
            Ended::Outcome(Outcome::SnoozeBecause(wait, reason)) => {
                Disposition::Snooze { wait, reason: Some(reason.into()) }
            }
            Ended::GracePeriodOver => Disposition::GivenBack,
            Ended::Failure(failure) if failures < self.discarder.policy.attempts => {
                self.discarder.retry(failure, failures)
            }
            Ended::Unreadable(error) => Disposition::Dead { error },
            Ended::Failure(failure) => self.discarder.discard(run, dead(failure.error)).await,
            Ended::Outcome(Outcome::Reject(error)) => self.discarder.discard(run, dead(error)).await,
            Ended::Cancelled => self.discarder.discard(run, Disposition::cancelled()).await,
            Ended::Quarantined => {
                let error = format!("quarantined: a worker died during {} of its runs", run.job.crashes);
                self.discarder.discard(run, dead(error)).await
            }
        };
        self.hand_over(run, disposition, ending);
    }

    /// Records the result of a run and hands it over. Then its slot is free.
    fn hand_over(&self, run: &Arc<StartedRun>, disposition: Disposition, ending: Ending) {
        let (duration, outcome) = (run.started.elapsed(), disposition.outcome());
        self.runs.run.record(duration);
        self.runs.finished(outcome);
        self.counts.end(outcome, duration);
        run.trace.set_attribute("millrace.job.outcome", outcome);
        if matches!(disposition, Disposition::Retry { .. } | Disposition::Dead { .. }) {
            run.trace.record_error(outcome);
        }
        disposition.log();
        run.trace.end();
        let attempts = i32::try_from(self.discarder.policy.attempts).unwrap_or(i32::MAX);
        // A quarantined job did not run: its crashes are kept, also when its `on_discard` failed.
        let survived = run.job.crashes < MAX_CRASHES
            && matches!(disposition, Disposition::Retry { .. } | Disposition::Snooze { .. });
        // The receiver outlives every runner; without it, the lease would expire and the job would run again.
        let _ = self.results.send(RunResult { run: run.clone(), attempts, survived, disposition });
        drop(ending);
    }
}

/// Runs the payload of a job. A panic is a failure, also a panic before the handler's first await.
async fn execute<J: Job>(context: J::Context, run: &StartedRun) -> Ended {
    let payload: J = match decode(&run.job.payload) {
        Ok(payload) => payload,
        Err(error) => return Ended::Unreadable(error),
    };
    if run.job.crashes >= MAX_CRASHES {
        return Ended::Quarantined;
    }
    let details = run.details();
    match AssertUnwindSafe(async move { payload.run(context, details).await }).catch_unwind().await {
        Ok(Ok(outcome)) => Ended::Outcome(outcome),
        Ok(Err(failure)) => Ended::Failure(failure),
        Err(panic) => Ended::Failure(Failure::new(panic_text(&*panic))),
    }
}

/// A run with its task.
struct RunningJob {
    /// Weak, so that a run is freed when its task ends, even if other runs of its batch go on for long.
    run: Weak<StartedRun>,
    task: AbortOnDrop,
    /// Whether a request to cancel it is being confirmed.
    is_watched: bool,
}

impl RunningJob {
    /// The run, if it goes on and there is a new request to cancel it.
    fn find_requested(&self, requested: &HashSet<String>) -> Option<Arc<StartedRun>> {
        let run = self.run.upgrade().filter(|_| !self.is_watched)?;
        (requested.contains(&run.job.id) && !run.has_ended()).then_some(run)
    }
}

/// Attaches the scope and the span of a run to work.
pub(crate) fn in_run<F: Future>(run: &Arc<StartedRun>, work: F) -> impl Future<Output = F::Output> + use<F> {
    Scope::new(run.clone()).attach_to(run.trace.attach_to(work))
}

/// Waits until there is a new request to cancel one of these jobs. The set of requests is nearly always empty.
async fn wait_for_requests(requested: &mut watch::Receiver<HashSet<String>>, running: &[RunningJob]) {
    // The channel stays open, because the runner shares its sender.
    let is_new = |requested: &HashSet<String>| {
        !requested.is_empty() && running.iter().any(|job| job.find_requested(requested).is_some())
    };
    let _ = requested.wait_for(is_new).await;
}

fn dead(error: String) -> Disposition {
    Disposition::Dead { error: error.into() }
}
