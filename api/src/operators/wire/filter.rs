//! Parameters and bodies that select jobs.

use poem_openapi::registry::MetaSchema;
use queue::{
    filter::{Age, Filter},
    operator::jobs::MAX_CANCELLED,
    status::State,
};

use super::input::{FilterText, ReasonText};
use crate::validation::{FieldError, Flag, Integer, QueryValue, Text, Value, parse_string, request};

/// A duration such as `30m`, `2h` or `1d`.
pub(crate) struct AgeParam;

impl AgeParam {
    fn parse(text: &str) -> Result<Age, FieldError> {
        text.parse().map_err(|expected| FieldError::new("value_error", format!("Value error, it {expected}")))
    }
}

impl QueryValue for AgeParam {
    type Out = Age;

    fn schema() -> MetaSchema {
        MetaSchema { pattern: Some("^[1-9][0-9]{0,5}[smhd]$".into()), ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<Age, FieldError> {
        Self::parse(text)
    }
}

impl Value for AgeParam {
    type Out = Age;

    fn schema() -> MetaSchema {
        <Self as QueryValue>::schema()
    }

    fn read(raw: &str) -> Result<Age, FieldError> {
        Self::parse(parse_string(raw).ok_or_else(FieldError::not_a_string)??.trim())
    }
}

/// The least number of runs of a job.
pub(crate) type Runs = Integer<0, { i32::MAX as i64 }, i32>;

request! {
    /// Which waiting or running jobs to cancel.
    #[example({"queue": "process_transaction", "attempts": 3, "older_than": "2h", "reason": "they are test data", "dry_run": true})]
    CancelRequest for Cancelling {
        /// The queue of the jobs.
        queue: FilterText,
        /// Cancel the running jobs instead of the waiting ones; false by default.
        running: Option<Flag>,
        /// Only those whose last error contains this text.
        error: Option<FilterText>,
        /// Only those of this group of errors; the empty text selects those without a group.
        group: Option<Text<0, 500>>,
        /// Only those that were enqueued longer ago, such as `30m`, `2h` or `1d`.
        older_than: Option<AgeParam>,
        /// Only those that this worker runs or ran last.
        worker: Option<FilterText>,
        /// Only those with at least so many runs.
        attempts: Option<Runs>,
        /// Only the job with this unique key.
        key: Option<Text<1, 1100>>,
        /// Only those with ids before this one, such as the `before` of a dry run.
        before: Option<FilterText>,
        /// At most this many jobs, oldest first; 1,000 by default, up to 10,000.
        limit: Option<Integer<1, { MAX_CANCELLED }, u32>>,
        /// It is recorded and shown to other operators.
        reason: ReasonText,
        /// Only count the selected jobs; false by default.
        dry_run: Option<Flag>,
    } => Ok(Self {
        filter: Filter {
            queue: Some(queue),
            state: Some(if running.unwrap_or(false) { State::Running } else { State::Waiting }),
            error,
            group,
            older_than,
            worker,
            attempts,
            key,
            before,
        },
        limit: limit.unwrap_or(1000),
        reason,
        dry_run: dry_run.unwrap_or(false),
    })
}

/// Which waiting or running jobs to cancel.
#[derive(Debug)]
pub(crate) struct Cancelling {
    pub filter: Filter,
    pub limit: u32,
    pub reason: String,
    pub dry_run: bool,
}
