//! What operators can do: list, show, cancel and replay jobs, and pause and resume queues.

pub mod audit;
pub mod demand;
pub mod groups;
pub mod jobs;
pub mod overview;
pub mod pauses;
pub mod problem;
mod queue_checks;
mod replay_job;
pub mod replays;
pub mod scale;
pub mod trends;
pub mod why;
pub mod workers;

use std::{collections::HashMap, sync::Arc};

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tokio::sync::Mutex;

use self::{audit::Order, replay_job::ReplayDeadLetters, replays::REPLAYS_WITHOUT_ASKING};

use super::{
    cancel::CANCELLED,
    counts::Event,
    enqueue::{Queue, Tx},
    history::history,
    job::{Failure, Job, JobId},
    status::{COUNTED, Cancelled, JobDetails, JobStatus, QueueStatus, Replayed, State},
    store::{self, list, operator as sql},
};
use runtime::{
    db::Pool,
    error::{Error, causes},
    executor::repeatable,
};

/// A job kind whose record a replay must restore.
pub trait Replayable: Job {
    /// Restores the record that [`Job::on_discard`] changed, in the transaction that makes the job wait again.
    fn on_replay(self, context: Self::Context, tx: &mut Tx) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Keeps how a record had failed that [`Replayable::on_replay`] resets, in the history of its job: the event `failed`.
///
/// # Errors
/// An error of the database. The transaction must then be rolled back.
pub async fn keep_failure(tx: &mut Tx, job: JobId, at: OffsetDateTime, error: &str) -> Result<(), Error> {
    Ok(sql::keep_failure(tx, &job.to_string(), at, error).await?)
}

/// The job kinds that have records. Jobs of other kinds are cancelled and replayed without hooks.
#[derive(Default)]
pub struct JobKinds(HashMap<&'static str, Box<dyn OperatorHooks>>);

impl JobKinds {
    /// Adds a job kind.
    #[must_use]
    pub fn kind<J: Replayable>(mut self, context: J::Context) -> Self {
        self.0.insert(J::NAME, Box::new(JobHooks::<J> { context }));
        self
    }
}

/// The hooks of a job kind, without its type. A payload that cannot be decoded has no record, so nothing is done for
/// it.
trait OperatorHooks: Send + Sync {
    fn on_discard(&self, payload: &[u8]) -> BoxFuture<'static, Result<(), Failure>>;
    fn on_replay<'a>(&self, payload: &[u8], tx: &'a mut Tx) -> BoxFuture<'a, Result<(), Error>>;
}

struct JobHooks<J: Job> {
    context: J::Context,
}

impl<J: Replayable> OperatorHooks for JobHooks<J> {
    fn on_discard(&self, payload: &[u8]) -> BoxFuture<'static, Result<(), Failure>> {
        match serde_json::from_slice::<J>(payload) {
            Ok(job) => Box::pin(job.on_discard(self.context.clone(), CANCELLED.into())),
            Err(_) => Box::pin(async { Ok(()) }),
        }
    }

    fn on_replay<'a>(&self, payload: &[u8], tx: &'a mut Tx) -> BoxFuture<'a, Result<(), Error>> {
        match serde_json::from_slice::<J>(payload) {
            Ok(job) => Box::pin(job.on_replay(self.context.clone(), tx)),
            Err(_) => Box::pin(async { Ok(()) }),
        }
    }
}

/// The operator's interface to the queue. Clones share everything.
#[derive(Clone)]
pub struct Operator {
    pool: Pool,
    queue: Queue,
    kinds: Arc<JobKinds>,
    /// Locked during a cancellation. It holds a session while [`Job::on_discard`] needs another one of the same pool. Without
    /// this lock, as many cancellations as the pool has sessions would all wait for each other.
    cancelling: Arc<Mutex<()>>,
}

impl Operator {
    /// Creates the interface. `kinds` are the job kinds that have records. That of replays is added: its record is the replay.
    pub fn new(pool: &Pool, queue: &Queue, kinds: JobKinds) -> Self {
        let (pool, queue) = (pool.clone(), queue.clone());
        let operator = Self { pool, queue, kinds: Arc::default(), cancelling: Arc::default() };
        let kinds = kinds.kind::<ReplayDeadLetters>(operator.clone());
        Self { kinds: Arc::new(kinds), ..operator }
    }

    /// The same interface, but it reads through another pool. Actions use the pool of the queue.
    #[must_use]
    pub fn reading(&self, pool: &Pool) -> Self {
        Self { pool: pool.clone(), ..self.clone() }
    }

    /// Lists every queue that has jobs, workers or a pause. Its cost has a bound: it reads a few index ranges of at
    /// most [`COUNTED`] entries per queue, and the newest [`COUNTED`] jobs.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn queues(&self) -> Result<Vec<QueueStatus>, Error> {
        Ok(sql::queues(&self.pool, COUNTED, COUNTED, &[]).await?)
    }

    /// Returns a queue; `None` if it has no jobs, workers or pause.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn queue(&self, name: &str) -> Result<Option<QueueStatus>, Error> {
        let queue = sql::queue(&self.pool, name, COUNTED).await?;
        let jobs = queue.waiting + queue.running + queue.dead + queue.recently_done;
        Ok((jobs + queue.workers > 0 || queue.paused_at.is_some()).then_some(queue))
    }

    /// Returns the details of one job; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn show(&self, id: &str) -> Result<Option<JobDetails>, Error> {
        let Some((row, details)) = list::show(&self.pool, id).await? else { return Ok(None) };
        let status = row.status.clone();
        let job = JobStatus::from(row);
        let payload = serde_json::from_slice(&details.payload)
            .unwrap_or_else(|_| String::from_utf8_lossy(&details.payload).into_owned().into());
        let why = explain(&job, &status, &details);
        let errors = details.errors.unwrap_or_else(|| serde_json::json!([]));
        let acts = details.acts.unwrap_or_default();
        let events = history(&job, &errors, &details.events.unwrap_or_default(), &acts);
        Ok(Some(JobDetails { why, errors, events, replays: details.replays, payload, job }))
    }

    /// Returns the details of one job, and records that its payload was opened; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn open(&self, id: &str, order: &Order) -> Result<Option<JobDetails>, Error> {
        let Some(details) = self.show(id).await? else { return Ok(None) };
        let mut tx = self.queue.begin().await?;
        sql::audit::record(&mut *tx, order, "open", id, None, 1).await?;
        tx.commit().await?;
        Ok(Some(details))
    }

    /// Cancels a job: a waiting one at once, a running one at its next await. [`Job::on_discard`] changes its record.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable or `on_discard` fails; [`Error::Internal`] for an
    /// unknown state. Then the job has not changed; its record has if the process dies, or the commit fails, after
    /// `on_discard`. The next run of the job finds that.
    pub async fn cancel(&self, id: &str, order: &Order) -> Result<Cancelled, Error> {
        let _only = self.cancelling.lock().await;
        let mut tx = self.queue.begin().await?;
        let Some(job) = sql::lock(&mut tx, id).await? else { return Ok(Cancelled::NotFound) };
        let cancelled = match State::of(&job.status) {
            State::Waiting => {
                // The job stays locked meanwhile, so that no worker claims it and changes the record as well.
                if let Some(kind) = self.kinds.0.get(job.queue.as_str()) {
                    kind.on_discard(&job.payload).await.map_err(|failure| Error::Unavailable(failure.error))?;
                }
                sql::cancel(&mut tx, id, CANCELLED).await?;
                Cancelled::AtOnce
            }
            State::Running => {
                sql::request_cancellation(&mut tx, id).await?;
                Cancelled::Requested
            }
            State::Done | State::Dead | State::Cancelled => return Ok(Cancelled::Ended),
            State::Unknown => return Err(unknown_state(&job.status)),
        };
        sql::audit::record(&mut *tx, order, "cancel", id, None, 1).await?;
        if cancelled == Cancelled::AtOnce {
            sql::count(&mut tx, &job.queue, Event::Cancelled).await?;
        }
        tx.commit().await?;
        Ok(cancelled)
    }

    /// Makes a dead or cancelled job wait again, and restores its record in the same transaction. Nothing changes if it was
    /// replayed [`REPLAYS_WITHOUT_ASKING`] times or more: see [`Operator::replay_again`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable, or the error of [`Replayable::on_replay`]. Then nothing
    /// has changed.
    pub async fn replay(&self, id: &str, order: &Order) -> Result<Replayed, Error> {
        self.replay_below(REPLAYS_WITHOUT_ASKING, id, order).await
    }

    /// The same, however often the job was replayed: the operator has confirmed that.
    ///
    /// # Errors
    /// Those of [`Operator::replay`].
    pub async fn replay_again(&self, id: &str, order: &Order) -> Result<Replayed, Error> {
        self.replay_below(i32::MAX, id, order).await
    }

    /// Replays a job that was replayed less often than `limit`.
    async fn replay_below(&self, limit: i32, id: &str, order: &Order) -> Result<Replayed, Error> {
        let mut tx = self.queue.begin().await?;
        let Some(job) = sql::lock(&mut tx, id).await? else { return Ok(Replayed::NotFound) };
        if !matches!(State::of(&job.status), State::Dead | State::Cancelled) {
            return Ok(Replayed::NotDead);
        }
        if job.replays >= limit {
            return Ok(Replayed::ReplayedBefore);
        }
        if let Some(kind) = self.kinds.0.get(job.queue.as_str()) {
            kind.on_replay(&job.payload, &mut tx).await?;
        }
        if !sql::replay(&mut tx, id).await? {
            return Ok(Replayed::KeyTaken);
        }
        sql::audit::record(&mut *tx, order, "replay", id, None, 1).await?;
        sql::count(&mut tx, &job.queue, Event::Enqueued).await?;
        tx.commit().await?;
        if let Err(error) = store::announce(repeatable(&self.queue.pool), &[job.queue]).await {
            tracing::debug!(error = causes(&error), "could not announce a replayed job");
        }
        Ok(Replayed::Replayed)
    }
}

fn unknown_state(status: &str) -> Error {
    Error::Internal(format!(
        "its state in the database is {status:?}, which Millrace does not know: another program wrote it"
    ))
}

/// Explains in words why a job is not running.
fn explain(job: &JobStatus, status: &str, details: &list::Details) -> String {
    let (workers, failing) = (details.workers, details.failing);
    match job.state {
        State::Done => "it is done".into(),
        State::Dead => "it is a dead letter: replay it to run it again".into(),
        State::Cancelled => "an operator cancelled it: replay it by its id to run it again".into(),
        State::Unknown => unknown_state(status).to_string(),
        State::Running if details.cancelling && details.held => {
            "it is running, and its worker aborts it at its next await".into()
        }
        State::Running if details.held => "it is running".into(),
        State::Running if workers == 0 => "its worker is gone, and no live worker can take it over".into(),
        State::Running => {
            let end = if details.cancelling { " and ends it, because an operator cancelled it" } else { "" };
            format!("its worker is gone: another worker takes it over when the lease has expired{end}")
        }
        State::Waiting if let Some(reason) = &details.paused_because => format!("its queue is paused: {reason}"),
        State::Waiting if workers == 0 => "no live worker runs its queue".into(),
        State::Waiting if job.due_in_seconds > 0.0 => match snooze_reason(details) {
            Some(Some(reason)) => format!("its last run snoozed it: {reason}"),
            Some(None) => "its last run snoozed it".into(),
            None if job.failures > 0 => format!("it failed {} times and waits for its next attempt", job.failures),
            None => "it is not due yet".into(),
        },
        State::Waiting if let Some(error) = &details.claim_error => {
            format!("it is due, but the claims of {failing} of {workers} workers fail in the database: {error}")
        }
        State::Waiting => format!("it is due, and waits for a free slot in one of {workers} workers"),
    }
}

/// The reason of the snooze, which may have none; the outer `None` if the last run did not snooze the job.
fn snooze_reason(details: &list::Details) -> Option<Option<&str>> {
    details.last_result.as_ref()?.get("Snoozed").map(|reason| reason.as_str())
}
