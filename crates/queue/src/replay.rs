//! Types of replays: which dead letters, how fast, and the progress.

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::status::JobStatus;

/// Counting selected dead letters stops here.
pub const MAX_SELECTED: i64 = 100_000;
/// The highest rate, in jobs per second.
pub const MAX_RATE: f64 = 10_000.0;

/// A job that was replayed so often is replayed again only if the operator confirms it.
pub const REPLAYS_WITHOUT_ASKING: i32 = 2;

/// Which dead letters of a queue are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Selection {
    pub queue: String,
    /// Only those of this group of errors.
    pub group: Option<String>,
    /// Only those whose last error contains this text.
    pub error: Option<String>,
    /// Only those that died at this time or before.
    #[serde(with = "time::serde::rfc3339::option")]
    pub died_before: Option<OffsetDateTime>,
}

impl Selection {
    /// Parses `died_before`.
    ///
    /// # Errors
    /// When the text is no time in RFC 3339, or its UTC form is after the year 9999. The text of the error says what it
    /// must be.
    pub fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok().and_then(|at| at.checked_to_offset(UtcOffset::UTC));
        at.ok_or_else(|| "must be a time such as 2026-12-01T14:00:00Z".into())
    }
}

/// What a selection finds.
#[derive(Debug, Clone, Serialize)]
pub struct Selected {
    pub count: i64,
    /// Whether counting stopped at `count`.
    pub is_capped: bool,
    /// How many of them operators have already replayed [`REPLAYS_WITHOUT_ASKING`] times or more.
    pub replayed_before: i64,
    /// When they were counted, by the database's clock. As `died_before` it selects no jobs that die later, so that an
    /// action takes what was counted.
    #[serde(with = "time::serde::rfc3339")]
    pub counted_at: OffsetDateTime,
    /// The five oldest.
    pub samples: Vec<JobStatus>,
}

/// The result of the request to start a replay.
#[derive(Debug, Clone)]
pub enum StartedReplay {
    Started(Box<Replay>),
    /// So many of the selected jobs were already replayed [`REPLAYS_WITHOUT_ASKING`] times or more, and the operator has
    /// not confirmed that. Nothing has started.
    ReplayedBefore(i64),
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
    /// Confirms that jobs are replayed again which were replayed [`REPLAYS_WITHOUT_ASKING`] times or more.
    pub include_replayed: bool,
}

/// A dead letter that a replay could not make wait again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    pub job: String,
    pub cause: String,
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
    /// `running`; `paused`; `watching` when all jobs wait again and not all of them have ended; `stopped` or `done`.
    pub state: String,
    pub stopped_because: Option<String>,
    /// Jobs that wait again, run or have ended.
    pub replayed: i64,
    /// Dead letters that could not be replayed, such as those whose key another job has.
    pub skipped: i64,
    /// The newest 20 of those, oldest first.
    pub skips: Json<Vec<Skip>>,
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

impl Replay {
    /// Whether it has not ended.
    pub fn is_open(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "watching")
    }
}

impl ReplayChange {
    /// The states in which it is allowed, the new state, and the verb in the record of actions.
    pub(super) fn states(self) -> (&'static [&'static str], &'static str, &'static str) {
        match self {
            Self::Pause => (&["running"], "paused", "pause_replay"),
            Self::Resume => (&["paused"], "running", "resume_replay"),
            Self::Stop => (&["running", "paused", "watching"], "stopped", "stop_replay"),
        }
    }
}
