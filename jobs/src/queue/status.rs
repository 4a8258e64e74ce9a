//! What an operator is told: where jobs and queues stand, and what became of a request.

use serde::Serialize;
use time::OffsetDateTime;

use super::store::operate as sql;
use crate::error::Error;

/// Counts of jobs end here: "at least this many".
pub const COUNTED: i64 = 10_000;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Waiting,
    Running,
    Done,
    /// A dead letter: given up, kept, and there to be replayed.
    Dead,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Running, Self::Done, Self::Dead];

    /// The operator's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    /// apalis' word, in the database.
    pub(super) fn status(self) -> &'static str {
        match self {
            Self::Waiting => "Pending",
            Self::Running => "Running",
            Self::Done => "Done",
            Self::Dead => "Killed",
        }
    }

    pub(super) fn of(status: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|state| state.status() == status);
        found.ok_or_else(|| Error::Internal(format!("a job in the state {status:?}, which is none of ours")))
    }
}

/// A queue and what is in it. Counts end at [`COUNTED`].
#[derive(Debug, Clone, Serialize)]
pub struct QueueStatus {
    pub name: String,
    /// Since when nobody claims its jobs.
    #[serde(with = "time::serde::rfc3339::option")]
    pub paused_at: Option<OffsetDateTime>,
    /// Why it is paused.
    pub reason: Option<String>,
    /// Living workers that run it.
    pub workers: i64,
    pub waiting: i64,
    /// Those of the waiting whose time has come.
    pub due: i64,
    pub running: i64,
    pub dead: i64,
    /// Done among the [`COUNTED`] newest jobs of all queues.
    pub recently_done: i64,
    /// For how many seconds the first waiting job has been due; less than zero when none is yet.
    #[serde(rename = "late_seconds")]
    pub late: Option<f64>,
}

/// A job in a list.
#[derive(Debug, Clone, Serialize)]
pub struct JobStatus {
    pub id: String,
    pub queue: String,
    pub state: State,
    pub priority: i32,
    /// Runs so far, however they ended.
    pub runs: i32,
    /// Runs that failed since it was enqueued or replayed.
    pub failures: i32,
    /// Runs during which the worker died, likewise.
    pub crashes: i32,
    #[serde(with = "time::serde::rfc3339")]
    pub due_at: OffsetDateTime,
    /// By the database's clock; less than zero when its time has come.
    pub due_in_seconds: f64,
    /// Who runs it, or ran it last.
    pub worker: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    pub last_error: Option<String>,
    pub correlation_id: Option<String>,
    pub traceparent: Option<String>,
}

impl TryFrom<sql::JobRow> for JobStatus {
    type Error = Error;

    fn try_from(row: sql::JobRow) -> Result<Self, Error> {
        Ok(Self {
            state: State::of(&row.status)?,
            id: row.id,
            queue: row.queue,
            priority: row.priority,
            runs: row.claims,
            failures: row.failures,
            crashes: row.crashes,
            due_at: row.due_at,
            due_in_seconds: row.due_in,
            worker: row.worker,
            started_at: row.started_at,
            ended_at: row.ended_at,
            last_error: row.last_error,
            correlation_id: row.correlation_id,
            traceparent: row.traceparent,
        })
    }
}

/// Everything about one job.
#[derive(Debug, Clone, Serialize)]
pub struct JobDetails {
    #[serde(flatten)]
    pub job: JobStatus,
    /// Why it is not running; or, when it is, what there is to say about that.
    pub why: String,
    /// The last few errors, oldest first, each with `at`, `run`, `worker` and `error`.
    pub errors: serde_json::Value,
    /// As JSON, or as a text when it is none.
    pub payload: serde_json::Value,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub queue: Option<String>,
    pub state: Option<State>,
    /// Text within the last error.
    pub error: Option<String>,
    /// Only those with an id before this one: the last of the page before.
    pub before: Option<String>,
}

/// What became of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancelled {
    /// It waited, and is a dead letter now.
    AtOnce,
    /// It runs: its worker has been told, and ends the run at its next await.
    Requested,
    /// It had ended before.
    Ended,
    NotFound,
}

/// What became of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replayed {
    /// It waits again, due now and with all its tries.
    Replayed,
    /// It is no dead letter.
    NotDead,
    /// Another job with its [unique](super::NewJob::unique) key waits or runs.
    KeyTaken,
    NotFound,
}
