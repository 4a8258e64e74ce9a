//! What an operator is told: where jobs and queues stand, and what became of a request.

use serde::Serialize;
use time::OffsetDateTime;

use super::store::list as sql;

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
    /// Ended by an operator: no dead letter, and replayed only by its id.
    Cancelled,
    /// A state that Millrace does not know: another program wrote it.
    Unknown,
}

impl State {
    /// All states of Millrace itself.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Running, Self::Done, Self::Dead, Self::Cancelled];

    /// The operator's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }

    /// The word in the database, apalis' where it has one.
    pub(super) fn status(self) -> &'static str {
        match self {
            Self::Waiting => "Pending",
            Self::Running => "Running",
            Self::Done => "Done",
            Self::Dead => "Killed",
            Self::Cancelled => "Cancelled",
            Self::Unknown => "",
        }
    }

    pub(super) fn of(status: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.status() == status).unwrap_or(Self::Unknown)
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
    /// Those of them whose claims fail in the database.
    pub failing_workers: i64,
    /// Why, for one of them.
    pub claim_error: Option<String>,
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
    /// Runs in a row during which the worker died, likewise.
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

impl From<sql::JobRow> for JobStatus {
    fn from(row: sql::JobRow) -> Self {
        let (due_at, now): (OffsetDateTime, OffsetDateTime) = (row.due_at.into(), row.now.into());
        Self {
            state: State::of(&row.status),
            id: row.id,
            queue: row.queue,
            priority: row.priority,
            runs: row.claims,
            failures: row.failures,
            crashes: row.crashes,
            due_at,
            due_in_seconds: (due_at - now).as_seconds_f64(),
            worker: row.worker,
            started_at: row.started_at.map(OffsetDateTime::from),
            ended_at: row.ended_at.map(OffsetDateTime::from),
            last_error: row.last_error,
            correlation_id: row.correlation_id,
            traceparent: row.traceparent,
        }
    }
}

/// A page of jobs.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Newest first.
    pub jobs: Vec<JobStatus>,
    /// Finished jobs, and more than 10,000 waiting ones of one queue, were looked for down to this id only. `None` when
    /// nothing was left out.
    pub searched_to: Option<String>,
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
    /// It waited, and is cancelled now.
    AtOnce,
    /// It runs: its worker ends the run at its next await, or the worker that takes it over does.
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
    /// It is neither a dead letter nor cancelled.
    NotDead,
    /// Another job with its [unique](super::NewJob::unique) key waits or runs.
    KeyTaken,
    NotFound,
}
