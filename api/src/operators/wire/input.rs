//! Parameters and bodies of the operators' endpoints.

use poem_openapi::registry::MetaSchema;
use queue::{
    operator::{
        pauses::PauseEnd,
        replays::{MAX_RATE, MAX_SELECTED, Pace, Selection},
    },
    status::State,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    schema::any_of,
    validation::{
        Choice, FieldError, Flag, Integer, QueryValue, Text, ValidationError, Value, VisibleText, number_from_json,
        parse_string, request,
    },
};

/// The default of `rate`, in jobs per second.
const DEFAULT_RATE: f64 = 20.0;
/// The default of `canary`.
const DEFAULT_CANARY: u32 = 10;
/// The default of `stop_if_dead`.
const DEFAULT_STOP: f64 = 0.2;
/// The default and the largest `limit`.
const MAX_JOBS: u32 = 100_000;
const _: () = assert!(MAX_JOBS as i64 == MAX_SELECTED);

/// A reason, for other operators.
pub(super) type ReasonText = VisibleText<1, 500>;
/// A name of a queue, a group of errors, or a part of an error.
pub(super) type FilterText = Text<1, 500>;
type JobCount = Integer<1, { MAX_JOBS as i64 }, u32>;

/// A text in a query, of 1 to `MAX` characters.
pub(crate) struct TextParam<const MAX: usize>;

impl<const MAX: usize> QueryValue for TextParam<MAX> {
    type Out = String;

    fn schema() -> MetaSchema {
        <Text<1, MAX> as Value>::schema()
    }

    fn read(text: &str) -> Result<String, FieldError> {
        match text.chars().count() {
            0 => Err(FieldError::too_short(1)),
            length if length > MAX => Err(FieldError::too_long(MAX)),
            _ => Ok(text.to_owned()),
        }
    }
}

impl Choice for State {
    const ALL: &'static [Self] = &State::ALL;

    fn name(self) -> &'static str {
        self.as_str()
    }
}

/// The end of a pause.
pub(crate) struct Until;

impl Value for Until {
    type Out = PauseEnd;

    fn schema() -> MetaSchema {
        let duration = MetaSchema { pattern: Some("^[1-9][0-9]{0,5}[smhd]$".into()), ..MetaSchema::new("string") };
        any_of([MetaSchema::new_with_format("string", "date-time"), duration])
    }

    fn read(raw: &str) -> Result<PauseEnd, FieldError> {
        let text = parse_string(raw).ok_or_else(FieldError::not_a_string)??;
        text.trim().parse().map_err(|must: String| wrong_until(&must))
    }
}

/// An end of a pause that is not what it must be.
fn wrong_until(must: &str) -> FieldError {
    FieldError::value_error(format!("until {must}"))
}

/// The rate of a replay, in jobs per second.
struct Rate;

impl Value for Rate {
    type Out = f64;

    fn schema() -> MetaSchema {
        let (minimum, maximum) = (Some(0.0), Some(MAX_RATE));
        MetaSchema { minimum, maximum, exclusive_minimum: Some(true), ..MetaSchema::new("number") }
    }

    fn read(raw: &str) -> Result<f64, FieldError> {
        let rate = read_number(raw)?;
        if rate <= 0.0 {
            return Err(FieldError::new("greater_than", "Input should be greater than 0").with("gt", 0));
        }
        if rate > MAX_RATE { Err(FieldError::above(10_000)) } else { Ok(rate) }
    }
}

/// A share, from 0 to 1.
struct Share;

impl Value for Share {
    type Out = f64;

    fn schema() -> MetaSchema {
        MetaSchema { minimum: Some(0.0), maximum: Some(1.0), ..MetaSchema::new("number") }
    }

    fn read(raw: &str) -> Result<f64, FieldError> {
        match read_number(raw)? {
            share if share < 0.0 => Err(FieldError::below(0)),
            share if share > 1.0 => Err(FieldError::above(1)),
            share => Ok(share),
        }
    }
}

/// The time of an earlier count.
struct CountedAt;

impl Value for CountedAt {
    type Out = OffsetDateTime;

    fn schema() -> MetaSchema {
        MetaSchema::new_with_format("string", "date-time")
    }

    fn read(raw: &str) -> Result<OffsetDateTime, FieldError> {
        let text = parse_string(raw).ok_or_else(FieldError::not_a_string)??;
        Selection::parse_time(text.trim()).map_err(|must| FieldError::value_error(format!("died_before {must}")))
    }
}

fn read_number(raw: &str) -> Result<f64, FieldError> {
    let number: f64 = number_from_json(raw, |text| text.parse().map_err(|_| FieldError::not_a_number()))?;
    if number.is_finite() { Ok(number) } else { Err(FieldError::not_finite()) }
}

request! {
    /// Why an operator acts.
    #[example({"reason": "the processor is healthy again"})]
    Reason for Reason {
        /// It is recorded and shown to other operators.
        reason: ReasonText,
    }
}

/// Why an operator acts.
#[derive(Debug)]
pub(crate) struct Reason {
    pub reason: String,
}

request! {
    /// Why a job is replayed.
    #[example({"reason": "the processor is healthy again"})]
    JobReplayRequest for JobReplay {
        /// It is recorded and shown to other operators.
        reason: ReasonText,
        /// Also replay a job that was already replayed twice or more; false by default. Without it, such a job is a 409.
        include_replayed: Option<Flag>,
    } => Ok(Self { reason, include_replayed: include_replayed.unwrap_or(false) })
}

/// Why a job is replayed.
#[derive(Debug)]
pub(crate) struct JobReplay {
    pub reason: String,
    pub include_replayed: bool,
}

request! {
    /// Why and how long a queue is paused.
    #[example({"reason": "the processor is down", "until": "30m"})]
    Pause for Pausing {
        /// It is recorded and shown to other operators.
        reason: ReasonText,
        /// When the queue resumes by itself: a time with an offset, or a duration from now such as `30m`, `2h` or `1d`.
        until: Option<Until>,
    }
}

/// Why and how long a queue is paused.
#[derive(Debug)]
pub(crate) struct Pausing {
    pub reason: String,
    pub until: Option<PauseEnd>,
}

impl Pausing {
    /// The error of an end that is not after now.
    pub(crate) fn end_is_past(&self) -> ValidationError {
        let given = match self.until {
            Some(PauseEnd::At(at)) => at.format(&Rfc3339).unwrap_or_default(),
            _ => String::new(),
        };
        wrong_until(PauseEnd::MUST_FOLLOW).at_text("body", "until", &given)
    }
}

request! {
    /// Which dead letters to replay, and how.
    #[example({
        "queue": "process_transaction", "error": "connection refused", "rate": 20, "limit": 500, "canary": 10,
        "stop_if_dead": 0.2, "reason": "the processor is healthy again", "dry_run": true,
    })]
    ReplayRequest for Replaying {
        /// The queue of the dead letters.
        queue: FilterText,
        /// Only those of this group of errors, as `/admin/queue/dead` names it; the empty text selects those without a
        /// group.
        group: Option<Text<0, 500>>,
        /// Only those whose last error contains this text.
        error: Option<FilterText>,
        /// Only those that died at this time or before, such as the `counted_at` of a dry run.
        died_before: Option<CountedAt>,
        /// Jobs per second; 20 by default.
        rate: Option<Rate>,
        /// At most this many jobs, oldest first; all by default, up to 100,000.
        limit: Option<JobCount>,
        /// This many jobs go first. The others follow when these have ended. 10 by default; 0 for no canary.
        canary: Option<Integer<0, { MAX_JOBS as i64 }, u32>>,
        /// Stop when more than this share of the ended jobs, from 0 to 1, have died again; 0.2 by default.
        stop_if_dead: Option<Share>,
        /// Also replay jobs that were already replayed twice or more; false by default. Without it, such jobs are a 409.
        include_replayed: Option<Flag>,
        /// It is recorded and shown to other operators.
        reason: ReasonText,
        /// Only count the selected dead letters; false by default.
        dry_run: Option<Flag>,
    } => Ok(Self {
        selection: Selection { queue, group, error, died_before },
        pace: Pace {
            rate: rate.unwrap_or(DEFAULT_RATE),
            limit: limit.unwrap_or(MAX_JOBS),
            canary: canary.unwrap_or(DEFAULT_CANARY),
            stop_if_dead: stop_if_dead.unwrap_or(DEFAULT_STOP),
            include_replayed: include_replayed.unwrap_or(false),
        },
        reason,
        dry_run: dry_run.unwrap_or(false),
    })
}

/// Which dead letters to replay, and how.
#[derive(Debug)]
pub(crate) struct Replaying {
    pub selection: Selection,
    pub pace: Pace,
    pub reason: String,
    pub dry_run: bool,
}

request! {
    /// Which dead letters to discard.
    #[example({"queue": "process_transaction", "error": "422", "reason": "they are test data", "dry_run": true})]
    DiscardRequest for Discarding {
        /// The queue of the dead letters.
        queue: FilterText,
        /// Only those of this group of errors, as `/admin/queue/dead` names it; the empty text selects those without a
        /// group.
        group: Option<Text<0, 500>>,
        /// Only those whose last error contains this text.
        error: Option<FilterText>,
        /// Only those that died at this time or before, such as the `counted_at` of a dry run.
        died_before: Option<CountedAt>,
        /// At most this many jobs; all by default, up to 100,000.
        limit: Option<JobCount>,
        /// It is recorded and shown to other operators.
        reason: ReasonText,
        /// Only count the selected dead letters; false by default.
        dry_run: Option<Flag>,
    } => Ok(Self {
        selection: Selection { queue, group, error, died_before },
        limit: limit.unwrap_or(MAX_JOBS),
        reason,
        dry_run: dry_run.unwrap_or(false),
    })
}

/// Which dead letters to discard.
#[derive(Debug)]
pub(crate) struct Discarding {
    pub selection: Selection,
    pub limit: u32,
    pub reason: String,
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares_have_bounds() {
        let kinds = ["0.5", "\"20\"", "0", "-1", "10001", "1e999", "\"20/s\"", "null"]
            .map(|raw| (Rate::read(raw).err().map(|error| error.kind), Share::read(raw).err().map(|error| error.kind)));
        let expected = [
            (None, None),
            (None, Some("less_than_equal")),
            (Some("greater_than"), None),
            (Some("greater_than"), Some("greater_than_equal")),
            (Some("less_than_equal"), Some("less_than_equal")),
            (Some("finite_number"), Some("finite_number")),
            (Some("float_parsing"), Some("float_parsing")),
            (Some("float_type"), Some("float_type")),
        ];
        assert_eq!(kinds, expected);
    }
}
