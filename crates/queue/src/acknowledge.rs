//! Acknowledging: writes the results of runs in batches, under their fencing tokens, until the database has them.
//!
//! There is no timer: the longer one write takes, the more results the next one carries. A result that the database
//! refuses, or whose row another session has locked, is deferred, so that it delays no other result.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use metrics::counter;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    counts::{Counts, Event},
    discard::Discard,
    in_flight::InFlight,
    metrics::FENCED,
    poller::WakeSignal,
    result::{Disposition, RunResult},
    retry::Backoff,
    runner::in_run,
    storable::StorableText,
    store,
    write_results::{ResultWriter, Written, is_refusal, is_without_effect, may_be_of_one_row},
};
use runtime::{
    error::{causes, is_logged},
    executor::repeatable,
    mutex::lock,
    time_limit::with_time_limit,
};

/// The most results of one write.
const MAX_RESULTS: usize = 1000;
/// Concurrent writes: one collects its batch while the other waits for its commit.
const WRITERS: usize = 2;
/// Between two attempts to write deferred results.
const DEFERRED: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(5) };
/// The error of a job whose result cannot be stored.
const REFUSED: &str = "the database refused to store the result of this run; the worker's log says why";

/// Writes the results of all queues of a worker.
pub(crate) struct Acknowledger {
    pub writer: ResultWriter,
    pub in_flight: HashMap<&'static str, InFlight>,
    /// What ends the jobs of refused results, by queue.
    pub discards: HashMap<&'static str, Arc<dyn Discard>>,
    /// The queues that limit each key: a result that is written lets the next job of its key start.
    pub limited: HashMap<&'static str, Arc<WakeSignal>>,
    /// Requests a poll for the due times of jobs that wait again.
    pub poll_request: Arc<Notify>,
    /// Cancelled when a stop can no longer wait for unwritten results; their jobs run again after the lease.
    pub abandon: CancellationToken,
    pub deferred: DeferredWrites,
    pub counts: Counts,
}

/// Tasks that write deferred results.
#[derive(Default)]
pub(crate) struct DeferredWrites {
    tasks: Mutex<JoinSet<()>>,
    results: AtomicUsize,
}

impl DeferredWrites {
    /// Waits until all tasks have ended, including tasks that they start.
    async fn join(&self) {
        loop {
            let mut tasks = std::mem::take(&mut *lock(&self.tasks));
            if tasks.is_empty() {
                return;
            }
            while tasks.join_next().await.is_some() {}
        }
    }
}

impl Acknowledger {
    /// Writes until every sender is dropped, then announces the jobs that were given back.
    pub(crate) async fn run(self, results: mpsc::UnboundedReceiver<RunResult>) {
        let acknowledger = Arc::new(self);
        let given_back = Mutex::new(BTreeSet::new());
        let batches = stream::unfold(results, async |mut results| {
            let mut batch = Vec::new();
            (results.recv_many(&mut batch, MAX_RESULTS).await > 0).then_some((batch, results))
        });
        batches
            .for_each_concurrent(WRITERS, async |batch| {
                let queues =
                    batch.iter().filter(|r| r.disposition == Disposition::GivenBack).map(|r| r.queue().to_owned());
                lock(&given_back).extend(queues);
                let (done, other): (Vec<RunResult>, Vec<RunResult>) =
                    batch.into_iter().partition(|result| result.disposition == Disposition::Done);
                // Cancelled ones are written apart: their count is in a row of `queues`, which may be locked.
                let (cancelled, other) =
                    other.into_iter().partition(|result| matches!(result.disposition, Disposition::Cancelled { .. }));
                tokio::join!(acknowledger.write(done), acknowledger.write(other), acknowledger.write(cancelled));
            })
            .await;
        acknowledger.deferred.join().await;
        let queues: Vec<String> = given_back.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
        if !queues.is_empty()
            && let Err(error) = store::announce(repeatable(&acknowledger.writer.pool), &queues).await
        {
            tracing::debug!(error = causes(&error), "could not announce the jobs that were given back");
        }
    }

    /// Writes results of one kind. Returns when each of them is written or deferred.
    async fn write(self: &Arc<Self>, results: Vec<RunResult>) {
        let mut parts = vec![results];
        let mut failures = 0;
        // A response was lost. If a token no longer matches, the cause may be our own write.
        let mut maybe_written = false;
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            // After a locked row, others are likely. Waiting for each of them would take a whole time limit.
            let skip_locked = failures > 0 || self.deferred.results.load(Ordering::Relaxed) > 0;
            let written = tokio::select! {
                written = with_time_limit(self.writer.write(&part, skip_locked)) => written,
                () = self.abandon.cancelled() => {
                    parts.push(part);
                    return log_unwritten(parts.iter().map(Vec::len).sum());
                }
            };
            match written {
                Ok(written) => self.finish_write(part, &written, maybe_written),
                Err(error) if may_be_of_one_row(&error) => self.split_refused(part, &mut parts, error),
                Err(error) if skip_locked && is_without_effect(&error) => {
                    let error = causes(&error);
                    tracing::warn!(
                        results = part.len(),
                        error,
                        "the rows of results are still locked; their write is deferred"
                    );
                    self.defer(part, maybe_written, None);
                }
                Err(error) => {
                    failures += 1;
                    maybe_written |= !is_without_effect(&error);
                    if is_logged(failures) {
                        let error = causes(&error);
                        tracing::warn!(results = part.len(), failures, error, "could not write results; retrying");
                    }
                    parts.push(part);
                    self.abandon.run_until_cancelled(tokio::time::sleep(Backoff::DATABASE.wait(failures))).await;
                }
            }
        }
    }

    /// Writes deferred results until the database has them. `error` is why it refuses them, if it does.
    async fn write_deferred(
        self: Arc<Self>,
        mut waiting: Vec<RunResult>,
        mut maybe_written: bool,
        error: Option<sqlx::Error>,
    ) {
        let (mut tries, mut failures) = (0, 0);
        if let Some(error) = error {
            self.bury(&mut waiting, &error).await;
        }
        while !waiting.is_empty() {
            tries += 1;
            let attempt = async {
                tokio::time::sleep(DEFERRED.wait(tries)).await;
                with_time_limit(self.writer.write(&waiting, true)).await
            };
            let Some(written) = self.abandon.run_until_cancelled(attempt).await else {
                return log_unwritten(waiting.len());
            };
            match written {
                Ok(written) => {
                    let before = waiting.len();
                    let (locked, ended) = waiting.into_iter().partition(|result| written.locked.contains(result.id()));
                    waiting = locked;
                    self.deferred.results.fetch_sub(before - waiting.len(), Ordering::Relaxed);
                    self.release(&ended, &written, maybe_written);
                }
                Err(error) if waiting.len() > 1 && may_be_of_one_row(&error) => {
                    let half = waiting.split_off(waiting.len() / 2);
                    self.spawn(half, maybe_written, None);
                }
                Err(error) => {
                    self.bury(&mut waiting, &error).await;
                    maybe_written |= !is_refusal(&error) && !is_without_effect(&error);
                    failures += 1;
                    if is_logged(failures) {
                        let error = causes(&error);
                        tracing::warn!(results = waiting.len(), failures, error, "could not write results; retrying");
                    }
                }
            }
        }
    }

    /// Handles results of which the database refuses at least one. Each half is tried by itself. A single result is deferred,
    /// and its job becomes a dead letter, unless the error is an unknown one: it may pass.
    fn split_refused(
        self: &Arc<Self>,
        mut refused: Vec<RunResult>,
        parts: &mut Vec<Vec<RunResult>>,
        error: sqlx::Error,
    ) {
        if refused.len() > 1 {
            let half = refused.split_off(refused.len() / 2);
            parts.extend([refused, half]);
        } else {
            self.defer(refused, false, Some(error));
        }
    }

    /// If the error is a refusal, discards the jobs of these results. They become dead letters with a text that can be stored. If
    /// an `on_discard` fails, its job is retried, and if that is refused too, `on_discard` runs again.
    async fn bury(&self, refused: &mut [RunResult], error: &sqlx::Error) {
        let buried = Disposition::Dead { error: StorableText::from(REFUSED) };
        if !is_refusal(error) {
            return;
        }
        for result in refused.iter_mut().filter(|result| result.disposition != buried) {
            let (queue, job, outcome, error) =
                (result.queue(), result.id(), result.disposition.outcome(), causes(error));
            tracing::error!(queue, job, outcome, error, "the database refused the result of a run");
            result.disposition = match self.discards.get(queue) {
                Some(discard) => in_run(&result.run, discard.discard(&result.run, buried.clone())).await,
                None => buried.clone(),
            };
        }
    }

    /// Releases the written results, and defers those whose rows were locked.
    fn finish_write(self: &Arc<Self>, results: Vec<RunResult>, written: &Written, maybe_written: bool) {
        let (locked, ended): (Vec<RunResult>, Vec<RunResult>) =
            results.into_iter().partition(|result| written.locked.contains(result.id()));
        self.release(&ended, written, maybe_written);
        if !locked.is_empty() {
            tracing::warn!(results = locked.len(), "another session has locked the rows of results; they are deferred");
            self.defer(locked, maybe_written, None);
        }
    }

    /// Writes these results later. `error` is why the database refuses them.
    fn defer(self: &Arc<Self>, results: Vec<RunResult>, maybe_written: bool, error: Option<sqlx::Error>) {
        self.deferred.results.fetch_add(results.len(), Ordering::Relaxed);
        self.spawn(results, maybe_written, error);
    }

    fn spawn(self: &Arc<Self>, results: Vec<RunResult>, maybe_written: bool, error: Option<sqlx::Error>) {
        let mut tasks = lock(&self.deferred.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(self.clone().write_deferred(results, maybe_written, error));
    }

    /// Releases the jobs of these runs, and counts the runs whose token no longer matched.
    fn release(&self, results: &[RunResult], written: &Written, maybe_written: bool) {
        for signal in results.iter().filter_map(|result| self.limited.get(result.queue())) {
            signal.wake.notify_one();
        }
        let waits = |job: &RunResult| matches!(job.disposition, Disposition::Retry { .. } | Disposition::Snooze { .. });
        if results.iter().any(waits) {
            self.poll_request.notify_one();
        }
        for of_queue in results.chunk_by(|a, b| a.queue() == b.queue()) {
            if let Some(in_flight) = of_queue.first().and_then(|result| self.in_flight.get(result.queue())) {
                in_flight.release(of_queue.iter().map(|result| (result.id(), result.token())));
            }
        }
        let Some(ids) = written.ids.as_ref().filter(|_| !maybe_written) else { return };
        for result in results {
            if !ids.contains(result.id()) {
                counter!(FENCED, "queue" => result.queue()).increment(1);
                self.counts.of(result.queue()).add(Event::Fenced, 1);
                tracing::warn!(
                    queue = result.queue(),
                    job = result.id(),
                    run = result.token(),
                    outcome = result.disposition.outcome(),
                    "result dropped: the run no longer held its job",
                );
            }
        }
    }
}

fn log_unwritten(results: usize) {
    tracing::error!(results, "stopped with unwritten results; their jobs will run again");
}
