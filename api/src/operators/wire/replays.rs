//! The schemas of dead letters and their replays.

use poem_openapi::{Enum, Object, registry::MetaSchema};
use queue::{operator::replays, status::JobStatus};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::jobs::Job;
use crate::{
    validation::{FieldError, QueryValue, Value, parse_uuid},
    wire::{Nullable, Timestamp},
};

/// The dead letters of a queue that have the same error, apart from numbers, ids and quoted parts.
#[derive(Object)]
pub(crate) struct ErrorGroup {
    queue: String,
    /// Names the group in other requests; empty for jobs that failed before groups were recorded.
    group: String,
    /// The number of its dead letters; see `is_capped`.
    count: i64,
    /// Whether counting stopped at `count`.
    is_capped: bool,
    /// Its share of the queue's counted dead letters, from 0 to 1.
    share: f64,
    /// Those of the newest 1,000 that died in the last 15 minutes.
    died_in_15_min: i64,
    /// When its oldest job died.
    first_died_at: Nullable<Timestamp>,
    /// When the newest of them died.
    last_died_at: Nullable<Timestamp>,
    /// The last error of the newest job.
    sample_error: Nullable<String>,
    oldest_job: String,
    newest_job: String,
}

/// The dead letters that a request selects.
#[derive(Object)]
#[oai(rename = "SelectedJobs")]
pub(crate) struct Selected {
    /// The number of dead letters; see `is_capped`. With more than `limit`, the oldest `limit` are replayed.
    count: i64,
    /// Whether counting stopped at `count`.
    is_capped: bool,
    /// The number of those that were already replayed twice or more. Replaying them again needs `include_replayed`.
    replayed_before: i64,
    /// When they were counted. As `died_before` of a second request it selects no jobs that die later.
    counted_at: Timestamp,
    /// The five oldest.
    samples: Vec<Job>,
}

/// The result of a request to discard dead letters.
#[derive(Object)]
#[oai(rename = "DiscardedJobs")]
pub(crate) struct Discarded {
    /// Whether nothing was changed.
    dry_run: bool,
    /// The number of dead letters that were discarded, or with `dry_run` those that the request selects.
    count: u64,
    /// Whether counting stopped at `count`.
    is_capped: bool,
    /// When they were counted. As `died_before` of a second request it selects no jobs that die later.
    counted_at: Timestamp,
    /// The five oldest of them.
    samples: Vec<Job>,
}

/// The value of [`Discarded`].
#[derive(Serialize)]
pub(crate) struct DiscardedView {
    pub dry_run: bool,
    pub count: u64,
    pub is_capped: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub counted_at: OffsetDateTime,
    pub samples: Vec<JobStatus>,
}

impl From<replays::Selected> for DiscardedView {
    fn from(selected: replays::Selected) -> Self {
        let replays::Selected { count, is_capped, counted_at, samples, replayed_before: _ } = selected;
        Self { dry_run: true, count: u64::try_from(count).unwrap_or(0), is_capped, counted_at, samples }
    }
}

/// The id of a replay, before which a page begins.
pub(crate) struct ReplayId;

impl QueryValue for ReplayId {
    type Out = Uuid;

    fn schema() -> MetaSchema {
        <Uuid as Value>::schema()
    }

    fn read(text: &str) -> Result<Uuid, FieldError> {
        parse_uuid(text)
    }
}

/// The state of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
enum ReplayState {
    Running,
    Paused,
    /// All its jobs wait again, and not all of them have ended. It may still be stopped because too many die.
    Watching,
    /// By an operator, because too many jobs died again, or because its own job was cancelled or died; `stopped_because` says
    /// which.
    Stopped,
    Done,
}

/// A dead letter that a replay could not make wait again.
#[derive(Object)]
pub(crate) struct SkippedJob {
    /// The id of the job.
    job: String,
    cause: String,
}

/// A replay and its progress.
#[derive(Object)]
pub(crate) struct Replay {
    #[oai(validator(pattern = "^[0-9a-f-]{36}$"))]
    id: String,
    queue: String,
    /// Only dead letters of this group of errors.
    error_group: Nullable<String>,
    /// Only dead letters whose last error contains this text.
    error: Nullable<String>,
    /// Jobs per second.
    rate: f64,
    /// This many jobs go first. The others follow when these have ended.
    canary: i64,
    /// It stops when more than this share of the ended jobs, from 0 to 1, have died again.
    stop_if_dead: f64,
    max_jobs: i64,
    state: ReplayState,
    stopped_because: Nullable<String>,
    /// Jobs that wait again, run or have ended.
    replayed: i64,
    /// Dead letters that could not be replayed, such as those whose key another job has.
    skipped: i64,
    /// The newest 20 of those, oldest first.
    skips: Vec<SkippedJob>,
    created_at: Timestamp,
    ended_at: Nullable<Timestamp>,
}
