//! Jobs that exist if and only if the transaction that creates their work commits, announced right after it.

use std::{
    collections::{BTreeSet, HashSet},
    ops::{Deref, DerefMut},
    time::Duration,
};

use metrics::counter;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::{
    job::{Job, JobId, Origin, Priority},
    metrics::ENQUEUED,
    store,
};
use runtime::{
    error::{Error, causes},
    pooler::{Transaction, begin, in_transaction, repeatable},
    telemetry::traces::span::{self, Span},
};

/// At most one announcement of a queue in this time: a NOTIFY serialises the commits that carry one, so a busy
/// enqueuer must not send one each (5,400 -> 3,100 transactions/s).
const ANNOUNCE_EVERY: Duration = Duration::from_millis(5);
/// More transactions than can commit within that time.
const GATHERED: usize = 10_000;
/// Workers look for the next due time more often than this even when all is quiet, so only jobs due sooner need to be
/// announced.
const ANNOUNCE_WITHIN: Duration = Duration::from_secs(3);

/// The enqueueing side: opens transactions that may carry jobs.
#[derive(Clone)]
pub struct Queue {
    pool: PgPool,
    /// Queues that have new jobs.
    news: mpsc::UnboundedSender<&'static str>,
}

impl Queue {
    /// Starts the announcing task, which ends when the last clone is dropped.
    pub fn start(pool: PgPool) -> Self {
        let (news, heard) = mpsc::unbounded_channel();
        tokio::spawn(announce(pool.clone(), heard));
        Self { pool, news }
    }

    /// Opens a transaction. Never [`Tx::commit`] after an error in it: PostgreSQL rolls back and says so to nobody.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no connection to be had.
    pub async fn begin(&self) -> Result<Tx, Error> {
        Ok(Tx { inner: begin(&self.pool).await?, enqueued: Vec::new(), news: self.news.clone() })
    }
}

/// A database transaction that may carry jobs. Dropped without [`Tx::commit`], nothing of it happened.
pub struct Tx {
    inner: Transaction,
    /// The queue of each job, and whether it is due soon.
    enqueued: Vec<(&'static str, bool)>,
    news: mpsc::UnboundedSender<&'static str>,
}

impl Tx {
    /// Commits, then tells the workers about jobs that are due.
    ///
    /// # Errors
    /// When the outcome is not known to be a commit.
    pub async fn commit(self) -> Result<(), Error> {
        let span = Span::statement(|| "COMMIT".into());
        span.attach_to(self.inner.commit()).await.inspect_err(|_| span.record_error("commit"))?;
        drop(span);
        let mut soon = BTreeSet::new();
        for (queue, is_soon) in self.enqueued {
            counter!(ENQUEUED, "queue" => queue).increment(1);
            if is_soon {
                soon.insert(queue);
            }
        }
        for queue in soon {
            // The announcing task outlives every sender; were it gone, polling would find the job.
            let _ = self.news.send(queue);
        }
        Ok(())
    }
}

impl Deref for Tx {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.inner
    }
}

/// A job about to be enqueued.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub(super) id: JobId,
    pub(super) queue: &'static str,
    pub(super) payload: Vec<u8>,
    pub(super) due: Due,
    pub(super) priority: Priority,
    pub(super) origin: Origin,
    pub(super) key: Option<String>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    After(Duration),
    At(OffsetDateTime),
}

impl NewJob {
    /// A job of normal priority, due at once.
    ///
    /// # Errors
    /// [`Error::Internal`] when the payload has no JSON form, such as a map whose keys are no strings.
    pub fn of<J: Job>(job: &J) -> Result<Self, Error> {
        let payload = serde_json::to_vec(job).map_err(|error| Error::Internal(format!("{}: {error}", J::NAME)))?;
        Ok(Self {
            id: JobId::generate(),
            queue: J::NAME,
            payload,
            due: Due::After(Duration::ZERO),
            priority: Priority::Normal,
            origin: Origin::default(),
            key: None,
        })
    }

    /// Due this long after the transaction began, by the database's clock and to the microsecond.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { due: Due::After(delay), ..self }
    }

    /// Due at this time.
    #[must_use]
    pub fn at(self, time: OffsetDateTime) -> Self {
        Self { due: Due::At(time), ..self }
    }

    /// Before or after other jobs of its queue.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// With this id, when something must be able to name the job later.
    #[must_use]
    pub fn id(self, id: JobId) -> Self {
        Self { id, ..self }
    }

    /// Only if no job of its queue with this key waits or runs; one that has ended, well or not, leaves the key free.
    /// A run that is under way may already have read what this one is about: make the key name the work, not its topic.
    #[must_use]
    pub fn unique(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// On behalf of this request.
    #[must_use]
    pub fn origin(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }
}

/// Adds jobs to a transaction, in one statement however many they are, and answers the ids of those added: all, but for
/// [unique](NewJob::unique) ones whose key is taken. Those are skipped, and the transaction goes on.
///
/// Where another transaction has taken such a key and not yet ended, this waits for its end; so of several calls in one
/// transaction, let all transactions make them in the same order.
///
/// # Errors
/// The database's; the transaction is then good for nothing but a rollback.
pub async fn enqueue(tx: &mut Tx, jobs: &[NewJob]) -> Result<Vec<JobId>, Error> {
    let traced = traced(jobs);
    let jobs = traced.as_ref().map_or(jobs, |(jobs, _spans)| jobs);
    let (mut keyed, plain): (Vec<&NewJob>, Vec<&NewJob>) = jobs.iter().partition(|job| job.key.is_some());
    if !plain.is_empty() {
        store::insert(tx, &plain).await?;
    }
    let mut skipped = HashSet::new();
    if !keyed.is_empty() {
        keyed.sort_by_key(|job| (job.queue, &job.key));
        skipped.extend(keyed.iter().map(|job| job.id));
        for id in store::insert_unique(tx, &keyed).await? {
            skipped.remove(&JobId::parse(&id));
        }
    }
    let added: Vec<&NewJob> = jobs.iter().filter(|job| !skipped.contains(&job.id)).collect();
    tx.enqueued.extend(added.iter().map(|job| {
        let soon = match job.due {
            Due::After(delay) => delay <= ANNOUNCE_WITHIN,
            Due::At(time) => time <= OffsetDateTime::now_utc() + ANNOUNCE_WITHIN,
        };
        (job.queue, soon)
    }));
    Ok(added.into_iter().map(|job| job.id).collect())
}

/// These jobs, each with the span of its enqueueing as where it comes from; nothing when nothing is exported. The spans
/// last until the jobs are inserted.
fn traced(jobs: &[NewJob]) -> Option<(Vec<NewJob>, Vec<Span>)> {
    span::is_exporting().then(|| {
        let trace = |job: &NewJob| {
            let mut job = job.clone();
            let origin = &mut job.origin;
            let span = origin.traceparent.as_deref().map_or(Span::NONE, |from| {
                Span::enqueue(job.queue, &job.id.to_string(), from, origin.correlation_id.as_deref())
            });
            origin.traceparent = span.traceparent().or(origin.traceparent.take());
            (job, span)
        };
        jobs.iter().map(trace).unzip()
    })
}

/// Whether a job of a queue waits whose [unique](NewJob::unique) key is from here to there, in the order of bytes and the
/// end excluded. If so, it cannot start before this transaction ends, and sees what this transaction writes: there is no
/// need for another one.
///
/// # Errors
/// The database's; the transaction is then good for nothing but a rollback.
pub async fn hold_waiting(tx: &mut Tx, queue: &str, from: &str, to: &str) -> Result<bool, Error> {
    Ok(store::lookup::hold_waiting(in_transaction(tx), queue, from, to).await?)
}

/// Sends what has gathered, until the last [`Queue`] and [`Tx`] are gone.
async fn announce(pool: PgPool, mut news: mpsc::UnboundedReceiver<&'static str>) {
    let mut gathered = Vec::new();
    while news.recv_many(&mut gathered, GATHERED).await > 0 {
        let queues: BTreeSet<&str> = gathered.drain(..).collect();
        let queues: Vec<String> = queues.into_iter().map(str::to_owned).collect();
        if let Err(error) = store::announce(repeatable(&pool), &queues).await {
            // Nothing is lost: every worker polls as well.
            tracing::debug!(error = causes(&error), "could not announce new jobs");
        }
        tokio::time::sleep(ANNOUNCE_EVERY).await;
    }
}
