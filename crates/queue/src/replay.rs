//! Types of replays: which dead letters, how fast, and the progress.

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::status::JobStatus;

/// Counting selected dead letters stops here.
pub const MAX_SELECTED: i64 = 100_000;
/// The highest rate, in jobs per second.
pub const MAX_RATE: f64 = 10_000.0;

/// Which dead letters of a queue are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Selection {
    pub queue: String,
    /// Only those of this group of errors.
    pub group: Option<String>,
    /// Only those whose last error contains this text.
    pub error: Option<String>,
}

/// What a selection finds.
#[derive(Debug, Clone, Serialize)]
pub struct Selected {
    pub count: i64,
    /// Whether counting stopped at `count`.
    pub is_capped: bool,
    /// The five oldest.
    pub samples: Vec<JobStatus>,
}

/// How to replay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Jobs per second, above 0 and at most [`MAX_RATE`].
    pub rate: f64,
    /// At most so many jobs.
    pub limit: u32,
    /// So many jobs go first. The others follow when these have ended.
    pub canary: u32,
    /// Stop when more than this share of the ended ones, from 0 to 1, have died again.
    pub stop_if_dead: f64,
}

/// A replay and its progress.
#[derive(Debug, Clone, Serialize)]
pub struct Replay {
    pub id: Uuid,
    pub queue: String,
    pub error_group: Option<String>,
    pub error: Option<String>,
    pub rate: f64,
    pub canary: i64,
    pub stop_if_dead: f64,
    pub max_jobs: i64,
    /// `running`, `paused`, `stopped` or `done`.
    pub state: String,
    pub stopped_because: Option<String>,
    /// Jobs that wait again, run or have ended.
    pub replayed: i64,
    /// Dead letters that could not be replayed, such as those whose key another job has.
    pub skipped: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
}

/// A change of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayChange {
    Pause,
    Resume,
    Stop,
}

impl ReplayChange {
    /// The states in which it is allowed, the new state, and the verb in the record of actions.
    pub(super) fn states(self) -> (&'static [&'static str], &'static str, &'static str) {
        match self {
            Self::Pause => (&["running"], "paused", "pause_replay"),
            Self::Resume => (&["paused"], "running", "resume_replay"),
            Self::Stop => (&["running", "paused"], "stopped", "stop_replay"),
        }
    }
}
