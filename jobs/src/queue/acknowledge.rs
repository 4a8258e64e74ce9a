//! Writes the results of runs in batches, under their fencing tokens, until the database has them.
//!
//! No timer: the longer one write takes, the more results the next one carries. A result that the database refuses, or
//! whose row another session has locked, is written apart from the others and holds up none of them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use metrics::counter;
use sqlx::{PgConnection, PgPool};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    claim::Holding,
    metrics::FENCED,
    result::{Result, Verdict},
    retry::Backoff,
    storable::StorableText,
    store::{
        self,
        results::{self as sql, Unfinished},
    },
};
use crate::{
    boot::{
        db::answered,
        pooler::{On, begin, on, within},
    },
    error::causes,
};

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
    pub pool: PgPool,
    pub worker: Arc<str>,
    pub holding: HashMap<&'static str, Holding>,
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
    pub async fn run(self, results: mpsc::UnboundedReceiver<Result>) {
        let writer = Arc::new(self);
        let given_back = Mutex::new(BTreeSet::new());
        let batches = stream::unfold(results, async |mut results| {
            let mut batch = Vec::new();
            (results.recv_many(&mut batch, MOST).await > 0).then_some((batch, results))
        });
        batches
            .for_each_concurrent(WRITERS, async |batch| {
                let queues = batch.iter().filter(|r| r.verdict == Verdict::GivenBack).map(|r| r.queue.to_owned());
                given_back.lock().unwrap_or_else(PoisonError::into_inner).extend(queues);
                let (done, other) = batch.into_iter().partition(|result: &Result| result.verdict == Verdict::Done);
                tokio::join!(writer.write(done), writer.write(other));
            })
            .await;
        writer.apart.ended().await;
        let queues: Vec<String> = given_back.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
        if !queues.is_empty()
            && let Err(error) = answered(store::announce(on(&writer.pool), &queues)).await
        {
            tracing::debug!(error = causes(&error), "could not announce what was given back; polling finds it");
        }
    }

    /// Writes results of one kind. Returns when the database has them, or when those that it has not are written apart.
    async fn write(self: &Arc<Self>, results: Vec<Result>) {
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
                written = answered(self.write_once(&part, careful)) => written,
                () = self.abandon.cancelled() => return self.leave(&part, parts.iter().map(Vec::len).sum()),
            };
            match written {
                Ok(written) => self.settle(part, &written, unsure),
                Err(error) if is_refusal(&error) => self.divide(part, &mut parts, &error),
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
    async fn write_apart(self: Arc<Self>, results: Vec<Result>, mut unsure: bool) {
        let mut waiting = results;
        let mut failures = 0;
        while !waiting.is_empty() {
            failures += 1;
            let again = async {
                tokio::time::sleep(APART.wait(failures)).await;
                answered(self.write_once(&waiting, true)).await
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
    fn divide(self: &Arc<Self>, mut refused: Vec<Result>, parts: &mut Vec<Vec<Result>>, error: &sqlx::Error) {
        if refused.len() > 1 {
            let half = refused.split_off(refused.len() / 2);
            parts.extend([refused, half]);
            return;
        }
        for result in &mut refused {
            let (queue, job, outcome, error) = (result.queue, &result.id, result.verdict.outcome(), causes(error));
            tracing::error!(queue, job, outcome, error, "the database refused the result of a run");
            result.verdict = Verdict::Dead { error: StorableText::from(REFUSED) };
        }
        // If this is refused too, it is tried for as long as the worker lives, apart from the others.
        self.apart.results.fetch_add(refused.len(), Ordering::Relaxed);
        self.spawn(refused, false);
    }

    fn settle(self: &Arc<Self>, results: Vec<Result>, written: &Written, unsure: bool) {
        let (locked, ended): (Vec<Result>, Vec<Result>) =
            results.into_iter().partition(|result| written.locked.contains(&result.id));
        self.release(&ended, written, unsure);
        if !locked.is_empty() {
            tracing::warn!(results = locked.len(), "another session has locked the rows of some results; they wait");
            self.apart.results.fetch_add(locked.len(), Ordering::Relaxed);
            self.spawn(locked, unsure);
        }
    }

    fn spawn(self: &Arc<Self>, results: Vec<Result>, unsure: bool) {
        let mut tasks = self.apart.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(self.clone().write_apart(results, unsure));
    }

    /// These runs hold their jobs no longer, and those whose token did not hold are counted.
    fn release(&self, results: &[Result], written: &Written, unsure: bool) {
        for result in results {
            if let Some(holding) = self.holding.get(result.queue) {
                holding.release(&result.id, result.token);
            }
            if !unsure && written.ids.as_ref().is_some_and(|ids| !ids.contains(&result.id)) {
                counter!(FENCED, "queue" => result.queue).increment(1);
                tracing::warn!(
                    queue = result.queue,
                    job = result.id,
                    run = result.token,
                    outcome = result.verdict.outcome(),
                    "result dropped: the run no longer held its job",
                );
            }
        }
    }

    fn leave(&self, results: &[Result], more: usize) {
        tracing::error!(results = results.len() + more, "results left unwritten: their jobs will run again");
    }

    /// Writes what can be written now. Careful, it passes over rows that another session has locked.
    async fn write_once(&self, results: &[Result], careful: bool) -> sqlx::Result<Written> {
        let results: Vec<&Result> = results.iter().collect();
        if !careful {
            let ids = self.write_on(&mut Place::Pool(&self.pool), &results).await?;
            return Ok(Written { ids, locked: HashSet::new() });
        }
        let ids: Vec<String> = results.iter().map(|result| result.id.clone()).collect();
        let mut transaction = begin(&self.pool).await?;
        let free: HashSet<String> = sql::lock_free(&mut transaction, &ids).await?.into_iter().collect();
        let (free, others): (Vec<&Result>, Vec<&Result>) = results.iter().partition(|one| free.contains(&one.id));
        let ids = match self.write_on(&mut Place::Transaction(&mut transaction), &free).await? {
            Some(ids) => ids,
            None => free.iter().map(|result| result.id.clone()).collect(),
        };
        transaction.commit().await?;
        // The other rows are locked, or another session has changed them and the run holds them no longer.
        let (others, tokens) = keys(&others);
        let locked =
            if others.is_empty() { Vec::new() } else { sql::held(&self.pool, &self.worker, &others, &tokens).await? };
        Ok(Written { ids: Some(ids), locked: locked.into_iter().collect() })
    }

    /// Returns for which jobs the tokens held; `None` when for all.
    async fn write_on(&self, place: &mut Place<'_>, results: &[&Result]) -> sqlx::Result<Option<HashSet<String>>> {
        let (ids, tokens) = keys(results);
        if results.iter().all(|result| result.verdict == Verdict::Done) {
            let finished = sql::finish(place.on(), &self.worker, &ids, &tokens).await?;
            if usize::try_from(finished) == Ok(results.len()) {
                return Ok(None);
            }
            let finished = sql::finished(place.on(), &self.worker, &ids, &tokens).await?;
            return Ok(Some(finished.into_iter().collect()));
        }
        let mut runs = Unfinished::default();
        for result in results {
            runs.push(&result.id, result.token, result.attempts, result.survived, result.verdict.next());
        }
        Ok(Some(sql::put_back(place.on(), &self.worker, &runs).await?.into_iter().collect()))
    }
}

/// Where a result is written.
enum Place<'p> {
    Pool(&'p PgPool),
    Transaction(&'p mut PgConnection),
}

impl Place<'_> {
    fn on(&mut self) -> On<'_> {
        match self {
            Self::Pool(pool) => on(pool),
            Self::Transaction(transaction) => within(transaction),
        }
    }
}

/// What a write came to.
struct Written {
    /// Jobs for which the token held; `None` for all.
    ids: Option<HashSet<String>>,
    /// Jobs that the run still holds and whose rows another session has locked: not written.
    locked: HashSet<String>,
}

fn keys(results: &[&Result]) -> (Vec<String>, Vec<i32>) {
    results.iter().map(|result| (result.id.clone(), result.token)).unzip()
}

/// Whether the database refuses a value or a row, as it will again: data exceptions, constraints, what is too large for
/// a page of an index, and exceptions of triggers.
fn is_refusal(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| matches!(code.get(..2), Some("22" | "23" | "44" | "54")) || code == "P0001")
}

/// Whether the statement certainly changed nothing: it ran out of time behind a lock, or was the victim of a deadlock.
fn is_without_effect(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| ["57014", "55P03", "40P01"].contains(&&*code))
}
