//! The interface of a job: its payload, its run, its outcomes and its policy.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use ulid::Ulid;
use uuid::Uuid;

use super::retry::Backoff;

/// Work that a worker does later. The value is the payload. Store ids in it, not state: the record may have changed by
/// then.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name of the job kind and of its queue. It is stored with every job, so it never changes.
    const NAME: &'static str;
    /// What a run needs in addition to the payload, usually the feature that the job belongs to.
    type Context: Clone + Send + Sync + 'static;

    /// The limits and the backoff of this job kind.
    fn policy(_context: &Self::Context) -> Policy {
        Policy::default()
    }

    /// Does the work. It may run more than once, and twice at the same time after a lease has expired. So make the
    /// effects conditional on the state of the record. An `Err` (also by `?`), a panic and a missed deadline lead to a
    /// retry.
    fn run(self, context: Self::Context, run: Run) -> impl Future<Output = Result<Outcome, Failure>> + Send;

    /// Records that the job ends without success, before it becomes a dead letter or is cancelled. It is retried if it
    /// fails.
    fn on_discard(self, _context: Self::Context, _reason: String) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }
}

/// The outcome of a run that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done, or no longer needed.
    Done,
    /// Not yet: the job is due again after this time. No failure is counted.
    Snooze(Duration),
    /// Like [`Outcome::Snooze`], with a reason for operators.
    SnoozeBecause(Duration, String),
    /// Never: the job becomes a dead letter at once, with this reason.
    Reject(String),
}

/// Why a run failed. Any error converts into it by `?`, with all its causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub(super) error: String,
    pub(super) not_before: Duration,
}

impl Failure {
    /// Creates a failure with this message.
    pub fn new(error: impl fmt::Display) -> Self {
        Self { error: error.to_string(), not_before: Duration::ZERO }
    }

    /// Delays the retry by at least this time, such as a provider's `Retry-After`. The backoff may delay it longer.
    #[must_use]
    pub fn not_before(self, not_before: Duration) -> Self {
        Self { not_before, ..self }
    }
}

/// The limits and the backoff of a job kind.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Runs that may fail before the job becomes a dead letter; at least 1. Snoozes and crashes are not counted.
    pub attempts: u32,
    /// The delay after a failure.
    pub backoff: Backoff,
    /// A run that takes longer is aborted and counts as a failure.
    pub deadline: Duration,
    /// Jobs of this kind that run at once in one worker process.
    pub concurrency: usize,
    /// Shares the slots among the [keys](crate::NewJob::fair_key) of waiting jobs, so that the backlog of one key delays the
    /// first job of another by two or three claims if at most 128 keys have waiting jobs. Each claim takes one more
    /// statement. Jobs are claimed by due time alone while that statement is slow, as under an old snapshot, and while the
    /// database refuses to change waiting jobs.
    pub fair: bool,
    /// Jobs of one [key](crate::NewJob::fair_key) that run at once in all worker processes; `None` for no limit. Jobs
    /// without a key are not limited. All workers must have the same limit.
    pub per_key: Option<u32>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts: 10,
            backoff: Backoff::default(),
            deadline: Duration::from_secs(60),
            concurrency: 100,
            fair: false,
            per_key: None,
        }
    }
}

/// One run of a job, as its handler sees it.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: JobId,
    /// The attempt number. Together with the job's id and the worker it is the fencing token: no two runs share it.
    pub token: i32,
    /// Earlier runs of this job that failed.
    pub failures: u32,
    /// The request that caused the job.
    pub origin: Origin,
}

/// The id of a job: a ULID, because ids then sort by time and apalis' tools expect one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub(super) Ulid);

impl JobId {
    /// Generates a new id. Within a millisecond, each id of this process is greater than the one before, so that lists
    /// show its jobs in the order in which they were created.
    pub fn generate() -> Self {
        static LAST: Mutex<Ulid> = Mutex::new(Ulid::nil());
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Ulid::generate();
        let next = last.increment().ok().filter(|next| next.timestamp_ms() == new.timestamp_ms());
        *last = next.unwrap_or(new);
        Self(*last)
    }

    /// Parses an id. The ids of other programs may have another format; they become the nil id.
    pub fn parse(text: &str) -> Self {
        Self(Ulid::from_string(text).unwrap_or_default())
    }
}

impl From<Uuid> for JobId {
    /// The id of the only job of the record with this id.
    fn from(id: Uuid) -> Self {
        Self(Ulid(id.as_u128()))
    }
}

impl From<JobId> for Uuid {
    /// The id of the record that this job belongs to.
    fn from(id: JobId) -> Self {
        Self::from_u128(id.0.0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The priority of a job among the due jobs of its queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

impl Priority {
    pub(super) fn level(self) -> i32 {
        match self {
            Self::Low => -1,
            Self::Normal => 0,
            Self::High => 1,
        }
    }
}

/// The request that caused a job. It is passed on to every job that the request enqueues, and to all their log lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The `X-Correlation-Id` of the request.
    pub correlation_id: Option<String>,
    /// The W3C Trace Context `traceparent` of the request.
    pub traceparent: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::JobId;

    /// Thousands of ids fall into one millisecond.
    #[test]
    fn ids_of_one_process_ascend() {
        let ids: Vec<JobId> = (0..10_000).map(|_| JobId::generate()).collect();
        // A clock that is set back between two ids starts again below them.
        let descents = ids.windows(2).filter(|pair| pair[0] >= pair[1]).count();
        assert!(descents <= 1, "{descents} ids are not greater than the one before");
    }
}
