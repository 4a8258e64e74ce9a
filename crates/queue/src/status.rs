//! The data that operators see: jobs, queues, and the results of their commands.

pub use runtime::duration::format_duration;
use serde::Serialize;
use time::OffsetDateTime;

use super::store::list as sql;

/// Counts of jobs stop here; this number means "at least".
pub const COUNTED: i64 = 10_000;
/// One page of a list searches at most so many of the newest jobs for those that no index finds.
pub const SEARCHED: i64 = sql::WINDOW;

/// What the numbers of waiting and due jobs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DepthIs {
    /// Counted now.
    Exact,
    /// Numbers from [`COUNTED`] on are estimates.
    Estimated,
    /// Counting stopped at [`COUNTED`], and no estimate is known.
    AtLeast,
}

impl DepthIs {
    /// The sign before a number: `""`, `"≈ "` or `"≥ "`.
    pub fn sign(self, count: i64) -> &'static str {
        match self {
            _ if count < COUNTED => "",
            Self::Exact => "",
            Self::Estimated => "≈ ",
            Self::AtLeast => "≥ ",
        }
    }
}

impl From<Option<bool>> for DepthIs {
    /// What numbers are, by whether there is an estimate; `None` if counting did not stop.
    fn from(is_estimated: Option<bool>) -> Self {
        match is_estimated {
            None => Self::Exact,
            Some(true) => Self::Estimated,
            Some(false) => Self::AtLeast,
        }
    }
}

/// The state of a job, in the operator's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Waiting,
    Running,
    Done,
    /// A dead letter: it is not retried any more, but kept for a replay.
    Dead,
    /// Ended by an operator. It is not a dead letter, and only replayed by its id.
    Cancelled,
    /// Another program has written a state that Millrace does not know.
    Unknown,
}

impl State {
    /// All states that Millrace writes.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Running, Self::Done, Self::Dead, Self::Cancelled];

    /// The word that operators see.
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

    /// The word in the database: apalis' word where apalis has one.
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

    /// Finds the state with this name.
    ///
    /// # Errors
    /// When no state has this name. The text lists the names.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == name);
        found.ok_or("must be waiting, running, done, dead or cancelled")
    }

    pub(super) fn of(status: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.status() == status).unwrap_or(Self::Unknown)
    }
}

/// A queue and its jobs. Counts stop at [`COUNTED`], apart from waiting and due jobs: see [`QueueStatus::depth_is`].
#[derive(Debug, Clone, Serialize)]
pub struct QueueStatus {
    pub name: String,
    /// Since when no job of it is claimed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub paused_at: Option<OffsetDateTime>,
    /// Who paused it.
    pub paused_by: Option<String>,
    /// Why it is paused.
    pub reason: Option<String>,
    /// When it resumes by itself.
    #[serde(with = "time::serde::rfc3339::option")]
    pub resume_at: Option<OffsetDateTime>,
    /// Live workers that run it.
    pub workers: i64,
    /// Those workers whose claims fail in the database.
    pub failing_workers: i64,
    /// The error of one of them.
    pub claim_error: Option<String>,
    pub waiting: i64,
    /// Waiting jobs that are due.
    pub due: i64,
    /// Whether `waiting` and `due` are counted or estimated.
    pub depth_is: DepthIs,
    pub running: i64,
    pub dead: i64,
    /// Finished jobs among the [`COUNTED`] newest jobs of all queues.
    pub recently_done: i64,
    /// Seconds since the first waiting job became due; negative if none is due yet.
    #[serde(rename = "late_seconds")]
    pub late: Option<f64>,
}

/// One job of a list.
#[derive(Debug, Clone, Serialize)]
pub struct JobStatus {
    pub id: String,
    pub queue: String,
    pub state: State,
    pub priority: i32,
    /// Runs so far, regardless of their outcome.
    pub runs: i32,
    /// Runs that failed since it was enqueued or replayed.
    pub failures: i32,
    /// Consecutive crashes since it was enqueued or replayed.
    pub crashes: i32,
    #[serde(with = "time::serde::rfc3339")]
    pub due_at: OffsetDateTime,
    /// By the database's clock; negative if it is due.
    pub due_in_seconds: f64,
    /// The worker that runs it or ran it last.
    pub worker: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    pub last_error: Option<String>,
    /// The group of its last error.
    pub error_group: Option<String>,
    /// Its [unique](super::NewJob::unique) key.
    pub key: Option<String>,
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
            error_group: row.error_group,
            key: row.key,
            correlation_id: row.correlation_id,
            traceparent: row.traceparent,
        }
    }
}

/// A page of a list of jobs.
#[derive(Debug, Clone)]
pub struct JobPage {
    /// Newest first.
    pub jobs: Vec<JobStatus>,
    /// The oldest of the ids that were searched for finished jobs, and for waiting jobs beyond the first 10,000 of a queue.
    /// `None` if all jobs were searched.
    pub searched_to: Option<String>,
    /// The number of these ids: [`SEARCHED`], or a tenth of them for a queue of which nothing is known; 0 if all jobs were
    /// searched.
    pub searched: i64,
    /// When the job of that id was enqueued; `None` for an id of another program.
    pub searched_back_to: Option<OffsetDateTime>,
    /// The id before which the next page begins; `None` on the last page.
    pub next: Option<String>,
}

/// One thing that happened to a job.
#[derive(Debug, Clone, Serialize)]
pub struct JobEvent {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// `enqueued`, `running`, `run_failed`, `rescued`, `snoozed`, `given_back`, `done`, `cancelled`, `discarded`,
    /// `replayed`, or `failed`: how its record had failed before a replay.
    pub event: &'static str,
    /// A sentence.
    pub text: String,
    /// Such as the run, its worker, when it was due and when it started.
    pub details: serde_json::Value,
}

/// All details of one job.
#[derive(Debug, Clone, Serialize)]
pub struct JobDetails {
    #[serde(flatten)]
    pub job: JobStatus,
    /// Why it is not running; details about its run if it is.
    pub why: String,
    /// The last few errors, oldest first, each with `at`, `run`, `worker` and `error`;
    /// `due` and `started` for those of this release.
    pub errors: serde_json::Value,
    /// What happened to it, oldest first: the newest 20 events.
    pub events: Vec<JobEvent>,
    /// How often operators have replayed it.
    pub replays: i32,
    /// As JSON, or as text if it is no JSON.
    pub payload: serde_json::Value,
}

/// The result of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancelled {
    /// It was waiting, and is cancelled now.
    AtOnce,
    /// It is running. The run is aborted at its next await, by its worker or by the worker that takes it over.
    Requested,
    /// It had already ended.
    Ended,
    NotFound,
}

/// The result of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replayed {
    /// It waits again, due now and with all its attempts.
    Replayed,
    /// It is neither a dead letter nor cancelled.
    NotDead,
    /// Another job with its [unique](super::NewJob::unique) key waits or runs.
    KeyTaken,
    /// Operators have replayed it [`REPLAYS_WITHOUT_ASKING`](super::operator::replays::REPLAYS_WITHOUT_ASKING) times or
    /// more, and the order does not confirm that.
    ReplayedBefore,
    NotFound,
}
