//! Writes the results of runs in batches, under their fencing tokens, until the database has them.
//!
//! No timer: the longer one write takes, the more results the next one carries.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use metrics::counter;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    claim::Holding,
    metrics::FENCED,
    retry::Backoff,
    store::{self, results::Unfinished},
};
use crate::{
    boot::{db::answered, pooler::repeatable},
    error::causes,
};

/// Results in one write.
const MOST: usize = 1000;
/// Writes under way at once: one gathers its next while the other waits for its commit.
const WRITERS: usize = 2;

/// What becomes of a job after a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Done,
    Retry { error: String, wait: Duration },
    Snooze { wait: Duration },
    Dead { error: String },
    GivenBack,
}

impl Verdict {
    /// The `outcome` label.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry { .. } => "retry",
            Self::Snooze { .. } => "snooze",
            Self::Dead { .. } => "dead",
            Self::GivenBack => "given_back",
        }
    }

    /// The one line about a run.
    pub fn log(&self) {
        match self {
            Self::Done => tracing::info!("job done"),
            Self::Retry { error, wait } => tracing::warn!(error, retry_in = ?wait, "job failed; trying again"),
            Self::Snooze { wait } => tracing::info!(again_in = ?wait, "job snoozed"),
            Self::Dead { error } => tracing::error!(error, "job given up: now a dead letter"),
            Self::GivenBack => tracing::info!("stopping: job given back"),
        }
    }
}

/// The result of one run.
#[derive(Debug)]
pub struct Result {
    pub queue: &'static str,
    pub id: String,
    pub token: i32,
    /// The limit of failures that applied.
    pub attempts: i32,
    pub verdict: Verdict,
}

/// What the writing loop needs.
pub struct Acknowledger {
    pub pool: PgPool,
    pub worker: Arc<str>,
    pub holding: HashMap<&'static str, Holding>,
    /// Cancelled when even unwritten results must be left to the end of the lease.
    pub abandon: CancellationToken,
}

impl Acknowledger {
    /// Writes until every sender is gone, then tells other workers about what was given back.
    pub async fn run(self, results: mpsc::UnboundedReceiver<Result>) {
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
                tokio::join!(self.write(done), self.write(other));
            })
            .await;
        let queues: Vec<String> = given_back.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
        if !queues.is_empty()
            && let Err(error) = answered(store::announce(repeatable(&self.pool), &queues)).await
        {
            tracing::debug!(error = causes(&error), "could not announce what was given back; polling finds it");
        }
    }

    /// Writes results of one kind, again and again until the database has taken them.
    async fn write(&self, results: Vec<Result>) {
        if results.is_empty() {
            return;
        }
        let mut failures = 0;
        let written = loop {
            let again = async {
                match answered(self.write_once(&results)).await {
                    Ok(written) => Some(written),
                    Err(error) => {
                        failures += 1;
                        tracing::warn!(
                            results = results.len(),
                            failures,
                            error = causes(&error),
                            "could not write results; trying again"
                        );
                        tokio::time::sleep(Backoff::DATABASE.wait(failures)).await;
                        None
                    }
                }
            };
            tokio::select! {
                written = again => {
                    if let Some(written) = written {
                        break written;
                    }
                }
                () = self.abandon.cancelled() => {
                    tracing::error!(results = results.len(), "results left unwritten: their jobs will run again");
                    return;
                }
            }
        };
        for result in &results {
            if let Some(holding) = self.holding.get(result.queue) {
                holding.release(&result.id, result.token);
            }
            // After a failed try this may as well be our own first write, of which we had no answer.
            if failures == 0 && written.as_ref().is_some_and(|written| !written.contains(&result.id)) {
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

    /// Answers for which jobs the tokens held; `None` when for all.
    async fn write_once(&self, results: &[Result]) -> sqlx::Result<Option<HashSet<String>>> {
        let ids: Vec<String> = results.iter().map(|result| result.id.clone()).collect();
        let tokens: Vec<i32> = results.iter().map(|result| result.token).collect();
        if results.iter().all(|result| result.verdict == Verdict::Done) {
            let finished = store::results::finish(&self.pool, &self.worker, &ids, &tokens).await?;
            if usize::try_from(finished) == Ok(results.len()) {
                return Ok(None);
            }
            let finished = store::results::finished(&self.pool, &self.worker, &ids, &tokens).await?;
            return Ok(Some(finished.into_iter().collect()));
        }
        let mut runs = Unfinished { ids, tokens, ..Unfinished::default() };
        for Result { verdict, attempts, .. } in results {
            let (error, wait) = match verdict {
                Verdict::Retry { error, wait } => (Some(error.clone()), Some(wait.as_secs_f64())),
                Verdict::Snooze { wait } => (None, Some(wait.as_secs_f64())),
                Verdict::Dead { error } => (Some(error.clone()), None),
                Verdict::GivenBack | Verdict::Done => (None, None),
            };
            runs.dead.push(matches!(verdict, Verdict::Dead { .. }));
            runs.delays.push(wait);
            runs.errors.push(error);
            runs.attempts.push(*attempts);
        }
        let put_back = store::results::put_back(&self.pool, &self.worker, &runs).await?;
        Ok(Some(put_back.into_iter().collect()))
    }
}
