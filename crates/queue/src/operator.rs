//! What an operator sees and does, by whichever tool: list, show, cancel and replay jobs, pause and resume queues.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::BoxFuture;
use sqlx::PgPool;

use super::{
    cancel::CANCELLED,
    enqueue::{Queue, Tx},
    job::{Failure, Job},
    status::{COUNTED, Cancelled, Filter, JobDetails, JobStatus, Listed, QueueStatus, Replayed, State},
    store::{self, list, operator as sql},
};
use runtime::{
    error::{Error, causes},
    pooler::repeatable,
};

/// Jobs read at once where all of a kind are wanted.
const PAGE: u32 = 1000;

/// A kind of job whose record an operator's replay must bring back.
pub trait Replayable: Job {
    /// Brings back the record that [`Job::on_discard`] gave up, in the transaction in which the job waits again.
    fn on_replay(self, context: Self::Context, tx: &mut Tx) -> impl Future<Output = Result<(), Error>> + Send;
}

/// JobKinds of job that have records beside them. Others are cancelled and replayed without anything beside.
#[derive(Default)]
pub struct JobKinds(HashMap<&'static str, Box<dyn OperatorHooks>>);

impl JobKinds {
    /// Adds a kind.
    #[must_use]
    pub fn kind<J: Replayable>(mut self, context: J::Context) -> Self {
        self.0.insert(J::NAME, Box::new(Kind::<J> { context }));
        self
    }
}

/// A kind of job, its type forgotten. A payload that cannot be decoded has no record that could be found.
trait OperatorHooks: Send + Sync {
    fn on_discard(&self, payload: &[u8]) -> BoxFuture<'static, Result<(), Failure>>;
    fn on_replay<'a>(&self, payload: &[u8], tx: &'a mut Tx) -> BoxFuture<'a, Result<(), Error>>;
}

struct Kind<J: Job> {
    context: J::Context,
}

impl<J: Replayable> OperatorHooks for Kind<J> {
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

/// An operator's hands. Clones share everything.
#[derive(Clone)]
pub struct Operator {
    pool: PgPool,
    queue: Queue,
    kinds: Arc<JobKinds>,
}

impl Operator {
    /// Knows the records of these kinds.
    pub fn new(pool: &PgPool, queue: &Queue, kinds: JobKinds) -> Self {
        Self { pool: pool.clone(), queue: queue.clone(), kinds: Arc::new(kinds) }
    }

    /// Every queue that has jobs, workers or a pause. However many jobs there are, this reads a few index ranges of at
    /// most [`COUNTED`] entries a queue, and the newest [`COUNTED`] jobs.
    ///
    /// # Errors
    /// As of all calls in here: [`Error::Unavailable`] when the database cannot be asked now.
    pub async fn queues(&self) -> Result<Vec<QueueStatus>, Error> {
        Ok(sql::queues(&self.pool, COUNTED).await?)
    }

    /// A page of jobs, newest first; the next one begins before its last id. However many jobs there are, this walks a
    /// bounded number of them: [`Listed::searched_to`] says what was left out.
    ///
    /// # Errors
    /// See [`Operator::queues`].
    pub async fn list(&self, filter: &Filter, limit: u32) -> Result<Listed, Error> {
        let mut page = list::Page {
            queue: filter.queue.as_deref(),
            status: filter.state.map(State::status),
            error: filter.error.as_deref(),
            before: filter.before.as_deref().unwrap_or(list::END),
            limit: limit.into(),
        };
        let pool = &self.pool;
        // The whole of these states is in an index of their own.
        let exact = match filter.state {
            Some(State::Running) => Some(list::running(pool, &page).await?),
            Some(State::Dead) => Some(list::dead(pool, &page).await?),
            Some(State::Cancelled) => Some(list::cancelled(pool, &page).await?),
            _ => None,
        };
        if let Some(rows) = exact {
            return Ok(Listed { jobs: rows.into_iter().map(JobStatus::from).collect(), searched_to: None });
        }
        let mut rows = list::newest(pool, &page).await?;
        let mut searched_to = None;
        if rows.len() < limit as usize {
            searched_to = list::window_end(pool, page.before).await?;
        }
        if let Some(end) = &searched_to {
            page.before = end;
            page.limit -= i64::try_from(rows.len()).unwrap_or(i64::MAX);
            if matches!(filter.state, None | Some(State::Waiting)) {
                rows.extend(list::waiting(pool, &page).await?);
            }
            if filter.state.is_none() {
                rows.extend(list::running(pool, &page).await?);
                rows.extend(list::dead(pool, &page).await?);
                rows.extend(list::cancelled(pool, &page).await?);
            }
            rows.sort_by(|one, other| other.id.cmp(&one.id));
            rows.truncate(limit as usize);
        }
        Ok(Listed { jobs: rows.into_iter().map(JobStatus::from).collect(), searched_to })
    }

    /// Everything about one job.
    ///
    /// # Errors
    /// See [`Operator::queues`].
    pub async fn show(&self, id: &str) -> Result<Option<JobDetails>, Error> {
        let Some((row, details)) = list::show(&self.pool, id).await? else { return Ok(None) };
        let status = row.status.clone();
        let job = JobStatus::from(row);
        let payload = serde_json::from_slice(&details.payload)
            .unwrap_or_else(|_| String::from_utf8_lossy(&details.payload).into_owned().into());
        let why = why(&job, &status, &details);
        Ok(Some(JobDetails { why, errors: details.errors.unwrap_or_else(|| Vec::<u8>::new().into()), payload, job }))
    }

    /// Ends a job: a waiting one at once, a running one at its next await. Its record is given up as by [`Job::on_discard`].
    ///
    /// # Errors
    /// See [`Operator::queues`]; or the record could not be given up, and nothing has changed.
    pub async fn cancel(&self, id: &str) -> Result<Cancelled, Error> {
        let mut tx = self.queue.begin().await?;
        let Some(job) = sql::lock(&mut tx, id).await? else { return Ok(Cancelled::NotFound) };
        let cancelled = match State::of(&job.status) {
            State::Waiting => {
                // Locked, nobody begins to run it meanwhile.
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
            State::Unknown => return Err(unknown(&job.status)),
        };
        tx.commit().await?;
        Ok(cancelled)
    }

    /// Has a dead or cancelled job run again, and brings its record back in the same transaction.
    ///
    /// # Errors
    /// See [`Operator::queues`]; or the record could not be brought back, and nothing has changed.
    pub async fn replay(&self, id: &str) -> Result<Replayed, Error> {
        let mut tx = self.queue.begin().await?;
        let Some(job) = sql::lock(&mut tx, id).await? else { return Ok(Replayed::NotFound) };
        if !matches!(State::of(&job.status), State::Dead | State::Cancelled) {
            return Ok(Replayed::NotDead);
        }
        if let Some(kind) = self.kinds.0.get(job.queue.as_str()) {
            kind.on_replay(&job.payload, &mut tx).await?;
        }
        if !sql::replay(&mut tx, id).await? {
            return Ok(Replayed::KeyTaken);
        }
        tx.commit().await?;
        if let Err(error) = store::announce(repeatable(&self.pool), &[job.queue]).await {
            tracing::debug!(error = causes(&error), "could not announce a replayed job; polling finds it");
        }
        Ok(Replayed::Replayed)
    }

    /// The dead jobs of a queue whose last error contains this text: what a replay of all of them would replay. Cancelled
    /// jobs are not among them.
    ///
    /// # Errors
    /// See [`Operator::queues`].
    pub async fn dead(&self, queue: &str, error: Option<&str>) -> Result<Vec<JobStatus>, Error> {
        let mut filter = Filter {
            queue: Some(queue.to_owned()),
            state: Some(State::Dead),
            error: error.map(str::to_owned),
            before: None,
        };
        let mut dead = Vec::new();
        loop {
            let page = self.list(&filter, PAGE).await?.jobs;
            let Some(last) = page.last() else { return Ok(dead) };
            filter.before = Some(last.id.clone());
            dead.extend(page);
        }
    }

    /// Stops all claims of a queue, from this moment on; what runs goes on. Paused again, only the reason changes.
    ///
    /// # Errors
    /// See [`Operator::queues`].
    pub async fn pause(&self, queue: &str, reason: &str) -> Result<(), Error> {
        Ok(sql::pause(repeatable(&self.pool), queue, reason).await?)
    }

    /// Lets a queue go on, at once; answers whether it was paused.
    ///
    /// # Errors
    /// See [`Operator::queues`].
    pub async fn resume(&self, queue: &str) -> Result<bool, Error> {
        Ok(sql::resume(repeatable(&self.pool), queue).await?)
    }
}

fn unknown(status: &str) -> Error {
    Error::Internal(format!(
        "its state in the database is {status:?}, which Millrace does not know: another program wrote it"
    ))
}

/// Why a job is not running, in words.
fn why(job: &JobStatus, status: &str, details: &list::Details) -> String {
    let (workers, failing) = (details.workers, details.failing);
    match job.state {
        State::Done => "it is done".into(),
        State::Dead => "it was given up: replay it to have it run again".into(),
        State::Cancelled => "an operator cancelled it: replay it by its id to have it run again".into(),
        State::Unknown => unknown(status).to_string(),
        State::Running if details.cancelling && details.held => {
            "it is running, and its worker ends it at its next await".into()
        }
        State::Running if details.held => "it is running".into(),
        State::Running => {
            let ends = if details.cancelling { ", which then ends it as an operator wants" } else { "" };
            format!("its worker is gone: another one takes it over when the lease is seen to have ended{ends}")
        }
        State::Waiting if let Some(reason) = &details.paused_because => format!("its queue is paused: {reason}"),
        State::Waiting if workers == 0 => "no living worker runs its queue".into(),
        State::Waiting if job.due_in_seconds > 0.0 => match snoozed(details) {
            Some(Some(reason)) => format!("its last run put it off: {reason}"),
            Some(None) => "its last run put it off".into(),
            None if job.failures > 0 => format!("it failed {} times, and waits for its next try", job.failures),
            None => "its time has not come".into(),
        },
        State::Waiting if let Some(error) = &details.claim_error => {
            format!("it is due, but the claims of {failing} of {workers} workers fail in the database: {error}")
        }
        State::Waiting => format!("it is due, and waits for one of {workers} workers to have a free slot"),
    }
}

/// Whether the last run put the job off, and why.
fn snoozed(details: &list::Details) -> Option<Option<&str>> {
    details.last_result.as_ref()?.get("Snoozed").map(|reason| reason.as_str())
}
