//! Enqueueing: a job exists if and only if the caller's transaction commits. Workers are notified right after the
//! commit.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::{Deref, DerefMut},
    time::{Duration, Instant},
};

use metrics::counter;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::{
    SOON,
    counts::{Counts, Event, Taken},
    job::JobId,
    metrics::ENQUEUED,
    new_job::{Due, NewJob},
    pace::Pace,
    store, worker,
};
use runtime::{
    db::Pool,
    error::{Error, causes, is_rolled_back},
    executor::{Transaction, begin, repeatable},
    telemetry::traces::span::{self, Span},
};

/// The time between two announcements of a busy enqueuer. A NOTIFY serialises the commits that carry one, so it must not send
/// one per transaction (5,400 → 3,100 transactions/s).
const ANNOUNCE_EVERY: Duration = Duration::from_millis(5);
/// More announcements than transactions can commit within that time.
const MAX_COLLECTED: usize = 10_000;
/// Only jobs that are due sooner than this are announced. Even idle workers check the due times more often.
const ANNOUNCE_WITHIN: Duration = Duration::from_secs(3);
/// Jobs that are due sooner than this are announced by their queue, so that a worker claims at once. Later ones are announced
/// as [`SOON`]: a worker only looks for their due times.
const CLAIM_WITHIN: Duration = Duration::from_millis(50);

/// Between two writes of the counts of enqueued jobs.
const WRITE_COUNTS_EVERY: Duration = Duration::from_secs(5);

/// The enqueueing side of the queue: opens transactions that may carry jobs.
#[derive(Clone)]
pub struct Queue {
    pub(crate) pool: Pool,
    /// Sends the names of queues that have new jobs, and [`SOON`].
    announcements: mpsc::UnboundedSender<&'static str>,
    /// The jobs that this process has enqueued or replayed.
    pub(crate) counts: Counts,
}

impl Queue {
    /// Starts the announcing task, which ends when the last clone is dropped.
    pub fn start(pool: Pool) -> Self {
        let (announcements, received) = mpsc::unbounded_channel();
        tokio::spawn(announce(pool.clone(), received));
        let counts = Counts::default();
        tokio::spawn(write_counts(pool.clone(), counts.clone(), announcements.downgrade()));
        Self { pool, announcements, counts }
    }

    /// Opens a transaction. Never call [`Tx::commit`] after an error in it: PostgreSQL then rolls back without an
    /// error.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no connection is available.
    pub async fn begin(&self) -> Result<Tx, Error> {
        let inner = begin(&self.pool).await?;
        Ok(Tx {
            inner,
            enqueued: Vec::new(),
            before_savepoint: 0,
            announcements: self.announcements.clone(),
            counts: self.counts.clone(),
        })
    }

    /// Counts and announces jobs that a statement of the caller has enqueued, after its commit: all of one queue, and due after
    /// `delay`. The statement is a [`query_with_jobs!`](crate::query_with_jobs).
    pub fn enqueued(&self, queue: &'static str, count: u64, delay: Duration) {
        if count == 0 {
            return;
        }
        count_enqueued(&self.counts, queue, count);
        if let Some(announcement) = announcement(queue, delay) {
            // The announcing task outlives every sender; without it, workers would find the job by polling.
            let _ = self.announcements.send(announcement);
        }
    }
}

fn count_enqueued(counts: &Counts, queue: &'static str, count: u64) {
    counter!(ENQUEUED, "queue" => queue).increment(count);
    counts.of(queue).add(Event::Enqueued, count);
}

/// What announces a job of this queue that is due after `delay`; `None` if workers find it in time.
fn announcement(queue: &'static str, delay: Duration) -> Option<&'static str> {
    if delay <= CLAIM_WITHIN { Some(queue) } else { (delay <= ANNOUNCE_WITHIN).then_some(SOON) }
}

/// A database transaction that may carry jobs. It is rolled back if it is dropped without [`Tx::commit`].
pub struct Tx {
    inner: Transaction,
    /// The queue of each job, and its announcement.
    enqueued: Vec<(&'static str, Option<&'static str>)>,
    /// The jobs of `enqueued` that came before the last savepoint.
    before_savepoint: usize,
    announcements: mpsc::UnboundedSender<&'static str>,
    counts: Counts,
}

impl Tx {
    /// Sets a savepoint. [`Transaction::release`] or [`Tx::undo`] ends it.
    ///
    /// # Errors
    /// An error of the database. The transaction must then be rolled back.
    pub(crate) async fn savepoint(&mut self) -> Result<(), Error> {
        self.before_savepoint = self.enqueued.len();
        Ok(self.inner.savepoint().await?)
    }

    /// Undoes what was done since the last savepoint, also after a failed statement.
    ///
    /// # Errors
    /// An error of the database. The transaction must then be rolled back.
    pub(crate) async fn undo(&mut self) -> Result<(), Error> {
        self.enqueued.truncate(self.before_savepoint);
        Ok(self.inner.undo().await?)
    }

    /// Commits, then announces the jobs that are due soon.
    ///
    /// # Errors
    /// When the transaction was rolled back, or its outcome is unknown.
    pub async fn commit(self) -> Result<(), Error> {
        let span = Span::statement(|| "COMMIT".into());
        span.attach_to(self.inner.commit()).await.inspect_err(|_| span.record_error("commit"))?;
        drop(span);
        let mut announced = BTreeSet::<&'static str>::new();
        let mut counts = BTreeMap::<_, u64>::new();
        for (queue, announcement) in self.enqueued {
            *counts.entry(queue).or_default() += 1;
            announced.extend(announcement);
        }
        for (queue, count) in counts {
            count_enqueued(&self.counts, queue, count);
        }
        for announcement in announced {
            // The announcing task outlives every sender; without it, workers would find the job by polling.
            let _ = self.announcements.send(announcement);
        }
        Ok(())
    }
}

impl Deref for Tx {
    type Target = Transaction;
    fn deref(&self) -> &Transaction {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Transaction {
        &mut self.inner
    }
}

/// Adds jobs to a transaction, in at most two statements. Returns the ids of the added jobs: all except
/// [unique](NewJob::unique) ones whose key is taken. These are skipped, and the transaction goes on.
///
/// It waits while another open transaction is taking the same key. To avoid deadlocks, all transactions must therefore
/// make several such calls in the same order.
///
/// # Errors
/// An error of the database. The transaction must then be rolled back.
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
        let delay: Duration = match job.due {
            Due::After(delay) => delay,
            // A time in the past is no delay.
            Due::At(time) => (time - OffsetDateTime::now_utc()).try_into().unwrap_or_default(),
        };
        (job.queue, announcement(job.queue, delay))
    }));
    Ok(added.into_iter().map(|job| job.id).collect())
}

/// Returns copies of these jobs, each with the span of its enqueueing as its origin; `None` while traces are not
/// exported. The spans must live until the jobs are inserted.
fn traced(jobs: &[NewJob]) -> Option<(Vec<NewJob>, Vec<Span>)> {
    span::is_exporting().then(|| {
        let trace = |job: &NewJob| {
            let mut job = job.clone();
            let origin = &mut job.origin;
            let span = origin.traceparent.as_deref().map_or(Span::NONE, |from| {
                let span = Span::enqueue(job.queue, from, origin.correlation_id.as_deref());
                span.record_message_id(|| job.id.to_string());
                span
            });
            origin.traceparent = span.traceparent().or(origin.traceparent.take());
            (job, span)
        };
        jobs.iter().map(trace).unzip()
    })
}

/// Locks a waiting job of a queue whose [unique](NewJob::unique) key is in the range from `from` to `to`, in byte order
/// and without `to`. Returns whether there is one. If so, it cannot start before this transaction ends and will see
/// what this transaction writes, so the caller need not enqueue another job.
///
/// # Errors
/// An error of the database. The transaction must then be rolled back.
pub async fn lock_waiting_job(tx: &mut Tx, queue: &str, from: &str, to: &str) -> Result<bool, Error> {
    Ok(store::lookup::lock_waiting_job(&mut **tx, queue, from, to).await?)
}

/// Announces new jobs, until the last [`Queue`] and [`Tx`] are dropped.
async fn announce(pool: Pool, mut announcements: mpsc::UnboundedReceiver<&'static str>) {
    let (mut collected, mut pace) = (Vec::new(), Pace::new(ANNOUNCE_EVERY));
    while announcements.recv_many(&mut collected, MAX_COLLECTED).await > 0 {
        pace.count(Instant::now());
        let announced: BTreeSet<&str> = collected.drain(..).collect();
        let announced: Vec<String> = announced.into_iter().map(str::to_owned).collect();
        if let Err(error) = store::announce(repeatable(&pool), &announced).await {
            // No job is lost, because every worker also polls.
            tracing::debug!(error = causes(&error), "could not announce new jobs");
        }
        tokio::time::sleep_until(pace.next(Instant::now()).into()).await;
    }
}

/// Writes the counts of enqueued jobs every few seconds, until the last [`Queue`] and [`Tx`] are dropped.
async fn write_counts(pool: Pool, counts: Counts, alive: mpsc::WeakUnboundedSender<&'static str>) {
    let process = worker::name();
    while alive.upgrade().is_some() {
        tokio::time::sleep(WRITE_COUNTS_EVERY).await;
        let taken = counts.take();
        if taken.is_empty() {
            continue;
        }
        let (kept, error) = match add_counts(&pool, &process, &taken).await {
            Ok(transaction) => match transaction.commit().await {
                Ok(()) => continue,
                // Counts that may have been written are dropped: see `counts`.
                Err(error) => (is_rolled_back(&error), error),
            },
            Err(error) => (true, error),
        };
        if kept {
            counts.put_back(&taken);
        }
        tracing::debug!(kept, error = causes(&error), "could not write the counts of enqueued jobs");
    }
}

/// Adds counts in a transaction that is still to be committed. After an error nothing is written.
async fn add_counts(pool: &Pool, process: &str, taken: &[Taken]) -> sqlx::Result<Transaction> {
    let mut transaction = begin(pool).await?;
    store::minutes::add(transaction.executor(), process, taken).await?;
    Ok(transaction)
}
