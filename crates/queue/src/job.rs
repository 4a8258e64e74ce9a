//! The face of the queue: what a job is, and what can come of running it.

use std::{fmt, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use ulid::Ulid;
use uuid::Uuid;

use super::retry::Backoff;

/// Work that a worker does later. The value itself is the payload: ids, not state, since the row may have changed.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Names the kind of job and its queue, for ever: it is stored with every job.
    const NAME: &'static str;
    /// What a run needs beside the payload: usually the feature that the job belongs to.
    type Context: Clone + Send + Sync + 'static;

    /// Limits and pace of this kind of job.
    fn policy(_context: &Self::Context) -> Policy {
        Policy::default()
    }

    /// Does the work. It may run more than once, and twice at the same time after a lease ended: effects are
    /// conditional on the record's own state. An `Err` (and so `?`), a panic and a missed deadline mean: try again.
    fn run(self, context: Self::Context, run: Run) -> impl Future<Output = Result<Outcome, Failure>> + Send;

    /// Records that the job is given up, before it becomes a dead letter; runs again if it fails.
    fn on_discard(self, _context: Self::Context, _reason: String) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }
}

/// How a run ended when it did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done, or there is none any more.
    Done,
    /// Not now: run again after this time. Uses up no attempt.
    Snooze(Duration),
    /// The same, with the reason that an operator is shown.
    SnoozeBecause(Duration, String),
    /// Never: becomes a dead letter at once, with this reason.
    Reject(String),
}

/// Why a run failed; any error becomes one through `?`, with all its causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub(super) error: String,
    pub(super) not_before: Duration,
}

impl Failure {
    /// A failure with this message.
    pub fn new(error: impl fmt::Display) -> Self {
        Self { error: error.to_string(), not_before: Duration::ZERO }
    }

    /// Tries again no earlier than this, whatever the backoff says: a `Retry-After` from outside.
    #[must_use]
    pub fn not_before(self, not_before: Duration) -> Self {
        Self { not_before, ..self }
    }
}

/// The limits and the pace of a kind of job.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Runs that may fail before the job is given up; at least 1. Snoozes and dead workers use up none.
    pub attempts: u32,
    /// The wait after a failure.
    pub backoff: Backoff,
    /// A run that takes longer is cancelled and counts as failed.
    pub deadline: Duration,
    /// How many of these run at once in one worker process.
    pub concurrency: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self { attempts: 10, backoff: Backoff::default(), deadline: Duration::from_secs(60), concurrency: 100 }
    }
}

/// One run of a job: who it is, and how often it was tried.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: JobId,
    /// Counts claims. With the id and the worker it is the fencing token: no two runs ever share it.
    pub token: i32,
    /// Earlier runs of this job that failed.
    pub failures: u32,
    /// Where the work came from.
    pub origin: Origin,
}

/// The id of a job: a ULID, so that ids sort by time, and the text that apalis' tools expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub(super) Ulid);

impl JobId {
    /// A new id.
    pub fn generate() -> Self {
        Self(Ulid::generate())
    }

    /// Reads the text of an id. Other producers may use other ids; those get a name but no number.
    pub(super) fn parse(text: &str) -> Self {
        Self(Ulid::from_string(text).unwrap_or_default())
    }
}

impl From<Uuid> for JobId {
    /// The id of the one job that belongs to a record with this id.
    fn from(id: Uuid) -> Self {
        Self(Ulid(id.as_u128()))
    }
}

impl From<JobId> for Uuid {
    /// The id of the one record that a job with this id belongs to.
    fn from(id: JobId) -> Self {
        Self::from_u128(id.0.0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of the waiting jobs of a queue go first.
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

/// Where work comes from: carried from the request into every job it enqueues and every line they log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// `X-Correlation-Id` of the request.
    pub correlation_id: Option<String>,
    /// W3C Trace Context `traceparent` of the request.
    pub traceparent: Option<String>,
}
