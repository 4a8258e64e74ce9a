//! Parameters and bodies that select jobs.

use poem_openapi::registry::MetaSchema;
use queue::{
    filter::{Age, Filter},
    operator::jobs::MAX_CANCELLED,
    status::State,
};
use serde_json::value::RawValue;

use super::input::{FilterText, ReasonText};
use crate::{
    schema::list_of,
    validation::{FieldError, Flag, Integer, QueryValue, Text, Value, parse_string, request},
};

/// A duration such as `30m`, `2h` or `1d`.
pub(crate) struct AgeParam;

impl AgeParam {
    fn parse(text: &str) -> Result<Age, FieldError> {
        text.parse().map_err(|expected| FieldError::value_error(format!("it {expected}")))
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

/// The id of a job. All ids that a request may contain fit into a body of 1 MiB.
type Id = Text<1, 64>;

/// Ids of jobs, at most as many as a request cancels.
pub(crate) struct Ids;

impl Ids {
    fn max() -> usize {
        usize::try_from(MAX_CANCELLED).unwrap_or(usize::MAX)
    }
}

impl Value for Ids {
    type Out = Vec<String>;

    fn schema() -> MetaSchema {
        MetaSchema { max_items: Some(Self::max()), ..list_of(<Id as Value>::schema()) }
    }

    fn read(raw: &str) -> Result<Vec<String>, FieldError> {
        let not_a_list = |_| FieldError::new("list_type", "Input should be a valid list");
        let ids: Vec<&RawValue> = serde_json::from_str(raw).map_err(not_a_list)?;
        if ids.len() > Self::max() {
            return Err(FieldError::new("too_long", format!("List should have at most {} items", Self::max())));
        }
        ids.into_iter().map(|id| <Id as Value>::read(id.get())).collect()
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
        /// Only these, such as the `ids` of a dry run: exactly what it has counted, as far as it still waits or runs.
        ids: Option<Ids>,
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
        ids,
        limit: limit.unwrap_or(1000),
        reason,
        dry_run: dry_run.unwrap_or(false),
    })
}

/// Which waiting or running jobs to cancel.
#[derive(Debug)]
pub(crate) struct Cancelling {
    pub filter: Filter,
    pub ids: Option<Vec<String>>,
    pub limit: u32,
    pub reason: String,
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_a_list_of_texts() {
        assert_eq!(Ids::read(r#"["a", "b\u0063"]"#).ok(), Some(vec!["a".into(), "bc".into()]));
        assert_eq!(Ids::read("[]").ok(), Some(Vec::new()));
        let many = format!("[{}\"x\"]", "\"x\",".repeat(Ids::max()));
        for (raw, kind) in [
            ("\"a\"", "list_type"),
            ("[1]", "string_type"),
            ("[null]", "string_type"),
            ("[\"\"]", "string_too_short"),
            (&*many, "too_long"),
        ] {
            assert_eq!(Ids::read(raw).err().map(|error| error.kind), Some(kind), "{raw:.40}");
        }
    }
}
