//! Writes the results of runs in batches, under their fencing tokens, until the database has them.
//!
//! No timer: the longer one write takes, the more results the next one carries. A result that the database refuses, or
//! whose row another session has locked, is written apart from the others and holds up none of them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use metrics::counter;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    claim::InFlight,
    metrics::FENCED,
    result::{Disposition, RunResult},
    retry::Backoff,
    storable::StorableText,
    store,
    write_results::{ResultWriter, Written, is_refusal, is_without_effect},
};
use runtime::{db::with_time_limit, error::causes, pooler::repeatable};

/// Results in one write.
const MOST: usize = 1000;
/// Writes under way at once: one gathers its next while the other waits for its commit.
const WRITERS: usize = 2;
/// Between two tries to write results whose rows are locked or that the database refuses again and again.
const APART: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(5) };
/// What a job becomes whose result cannot be stored.
const REFUSED: &str = "the database refused to store the result of this run; the worker's log says why";

/// What the writing loop needs.
pub struct Acknowledger {
    pub writer: ResultWriter,
    pub in_flight: HashMap<&'static str, InFlight>,
    /// Cancelled when even unwritten results must be left to the end of the lease.
    pub abandon: CancellationToken,
    /// Results that are written apart from the others.
    pub apart: Apart,
}

/// Tasks that write results apart from the others.
#[derive(Default)]
pub struct Apart {
    tasks: Mutex<JoinSet<()>>,
    results: AtomicUsize,
}

impl Apart {
    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of all tasks, and of those that they begin.
    async fn ended(&self) {
        loop {
            let mut tasks = std::mem::take(&mut *self.tasks());
            if tasks.is_empty() {
                return;
            }
            while tasks.join_next().await.is_some() {}
        }
    }
}

impl Acknowledger {
    /// Writes until every sender is gone, then tells other workers about what was given back.
    pub async fn run(self, results: mpsc::UnboundedReceiver<RunResult>) {
        let acknowledger = Arc::new(self);
        let given_back = Mutex::new(BTreeSet::new());
        let batches = stream::unfold(results, async |mut results| {
            let mut batch = Vec::new();
            (results.recv_many(&mut batch, MOST).await > 0).then_some((batch, results))
        });
        batches
            .for_each_concurrent(WRITERS, async |batch| {
                let queues =
                    batch.iter().filter(|r| r.disposition == Disposition::GivenBack).map(|r| r.queue.to_owned());
                given_back.lock().unwrap_or_else(PoisonError::into_inner).extend(queues);
                let (done, other): (Vec<RunResult>, Vec<RunResult>) =
                    batch.into_iter().partition(|result| result.disposition == Disposition::Done);
                // Those that were cancelled are counted in a row of `queues`, which another session may have locked.
                let (cancelled, other) =
                    other.into_iter().partition(|result| matches!(result.disposition, Disposition::Cancelled { .. }));
                tokio::join!(acknowledger.write(done), acknowledger.write(other), acknowledger.write(cancelled));
            })
            .await;
        acknowledger.apart.ended().await;
        let queues: Vec<String> = given_back.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
        if !queues.is_empty()
            && let Err(error) = store::announce(repeatable(&acknowledger.writer.pool), &queues).await
        {
            tracing::debug!(error = causes(&error), "could not announce what was given back; polling finds it");
        }
    }

    /// Writes results of one kind. Returns when the database has them, or when those that it has not are written apart.
    async fn write(self: &Arc<Self>, results: Vec<RunResult>) {
        let mut parts = vec![results];
        let mut failures = 0;
        // An answer was lost: what the token no longer holds may be our own write.
        let mut unsure = false;
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            // Once a lock was met others are likely: waiting for each would take a statement's time limit.
            let careful = failures > 0 || self.apart.results.load(Ordering::Relaxed) > 0;
            let written = tokio::select! {
                written = with_time_limit(self.writer.write(&part, careful)) => written,
                () = self.abandon.cancelled() => return self.leave(&part, parts.iter().map(Vec::len).sum()),
            };
            match written {
                Ok(written) => self.settle(part, &written, unsure),
                Err(error) if is_refusal(&error) => self.divide(part, &mut parts, &error),
                Err(error) if careful && is_without_effect(&error) => {
                    let error = causes(&error);
                    tracing::warn!(results = part.len(), error, "results meet a lock again and again; they wait");
                    self.set_apart(part, unsure);
                }
                Err(error) => {
                    failures += 1;
                    unsure |= !is_without_effect(&error);
                    let error = causes(&error);
                    tracing::warn!(results = part.len(), failures, error, "could not write results; trying again");
                    parts.push(part);
                    tokio::select! {
                        () = tokio::time::sleep(Backoff::DATABASE.wait(failures)) => {}
                        () = self.abandon.cancelled() => {}
                    }
                }
            }
        }
    }

    /// Writes results alone, one after the other, until the database has taken them.
    async fn write_apart(self: Arc<Self>, results: Vec<RunResult>, mut unsure: bool) {
        let mut waiting = results;
        let mut failures = 0;
        while !waiting.is_empty() {
            failures += 1;
            let again = async {
                tokio::time::sleep(APART.wait(failures)).await;
                with_time_limit(self.writer.write(&waiting, true)).await
            };
            let written = tokio::select! {
                written = again => written,
                () = self.abandon.cancelled() => return self.leave(&waiting, 0),
            };
            match written {
                Ok(written) => {
                    let before = waiting.len();
                    let (locked, ended) = waiting.into_iter().partition(|result| written.locked.contains(&result.id));
                    waiting = locked;
                    self.apart.results.fetch_sub(before - waiting.len(), Ordering::Relaxed);
                    self.release(&ended, &written, unsure);
                }
                Err(error) if is_refusal(&error) && waiting.len() > 1 => {
                    let half = waiting.split_off(waiting.len() / 2);
                    self.spawn(half, unsure);
                }
                Err(error) => {
                    unsure |= !is_refusal(&error) && !is_without_effect(&error);
                    let error = causes(&error);
                    tracing::warn!(results = waiting.len(), failures, error, "could not write results; trying again");
                }
            }
        }
    }

    /// The database refuses one of these, or more: each half is tried by itself, and the one that is left becomes a dead
    /// letter with a text that can be stored.
    fn divide(self: &Arc<Self>, mut refused: Vec<RunResult>, parts: &mut Vec<Vec<RunResult>>, error: &sqlx::Error) {
        if refused.len() > 1 {
            let half = refused.split_off(refused.len() / 2);
            parts.extend([refused, half]);
            return;
        }
        for result in &mut refused {
            let (queue, job, outcome, error) = (result.queue, &result.id, result.disposition.outcome(), causes(error));
            tracing::error!(queue, job, outcome, error, "the database refused the result of a run");
            result.disposition = Disposition::Dead { error: StorableText::from(REFUSED) };
        }
        // If this is refused too, it is tried for as long as the worker lives, apart from the others.
        self.set_apart(refused, false);
    }

    fn set_apart(self: &Arc<Self>, results: Vec<RunResult>, unsure: bool) {
        self.apart.results.fetch_add(results.len(), Ordering::Relaxed);
        self.spawn(results, unsure);
    }

    fn settle(self: &Arc<Self>, results: Vec<RunResult>, written: &Written, unsure: bool) {
        let (locked, ended): (Vec<RunResult>, Vec<RunResult>) =
            results.into_iter().partition(|result| written.locked.contains(&result.id));
        self.release(&ended, written, unsure);
        if !locked.is_empty() {
            tracing::warn!(results = locked.len(), "another session has locked the rows of some results; they wait");
            self.set_apart(locked, unsure);
        }
    }

    fn spawn(self: &Arc<Self>, results: Vec<RunResult>, unsure: bool) {
        let mut tasks = self.apart.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(self.clone().write_apart(results, unsure));
    }

    /// These runs hold their jobs no longer, and those whose token did not hold are counted.
    fn release(&self, results: &[RunResult], written: &Written, unsure: bool) {
        for result in results {
            if let Some(in_flight) = self.in_flight.get(result.queue) {
                in_flight.release(&result.id, result.token);
            }
            if !unsure && written.ids.as_ref().is_some_and(|ids| !ids.contains(&result.id)) {
                counter!(FENCED, "queue" => result.queue).increment(1);
                tracing::warn!(
                    queue = result.queue,
                    job = result.id,
                    run = result.token,
                    outcome = result.disposition.outcome(),
                    "result dropped: the run no longer held its job",
                );
            }
        }
    }

    fn leave(&self, results: &[RunResult], more: usize) {
        tracing::error!(results = results.len() + more, "results left unwritten: their jobs will run again");
    }
}
