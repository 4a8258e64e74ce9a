//! Pausing and resuming queues.

use std::str::FromStr;

use serde_json::json;
use time::{Duration, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use super::{Operator, audit::Order};
use crate::{
    metrics,
    store::operator::{self as sql, audit},
};
use runtime::{duration::parse_duration, error::Error};

/// The end of a pause, when the queue resumes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseEnd {
    /// At this time.
    At(OffsetDateTime),
    /// So long from now, by the database's clock.
    After(Duration),
}

impl PauseEnd {
    /// What the end of a pause must be.
    pub const MUST_FOLLOW: &str = "must be after now";
    /// The longest pause that ends by itself: every time until its end can be stored and displayed.
    const LONGEST: Duration = Duration::days(999_999);
}

impl FromStr for PauseEnd {
    type Err = String;

    /// Parses a time in RFC 3339, or a duration such as `30m`, `2h` or `1d`.
    fn from_str(text: &str) -> Result<Self, String> {
        // In UTC, because storing a time whose UTC form is after the year 9999 would panic.
        let at = OffsetDateTime::parse(text, &Rfc3339).ok().and_then(|at| at.checked_to_offset(UtcOffset::UTC));
        if let Some(at) = at {
            return Ok(Self::At(at));
        }
        match parse_duration(text) {
            Ok(after) if after.is_zero() => Err(Self::MUST_FOLLOW.into()),
            Ok(after) if after <= Self::LONGEST => Ok(Self::After(after)),
            _ => Err("must be a time such as 2026-12-01T14:00:00Z, or a duration such as 30m, 2h or 1d".into()),
        }
    }
}

/// What came of the request to pause a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pausing {
    Paused,
    /// No job kind of this process, no worker and no job has its name.
    UnknownQueue,
    /// The end is not after now, by the database's clock.
    EndIsPast,
}

impl Operator {
    /// Stops all claims of a queue at once; running jobs go on. With `end` the queue resumes by itself then. For a
    /// paused queue only the reason, the actor and the end change.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn pause(&self, queue: &str, end: Option<PauseEnd>, order: &Order) -> Result<Pausing, Error> {
        let mut tx = self.queue.begin().await?;
        if !metrics::queue_names().iter().any(|known| known == queue) && !sql::queue_exists(&mut *tx, queue).await? {
            return Ok(Pausing::UnknownQueue);
        }
        let (at, after_s) = match end {
            Some(PauseEnd::At(at)) => (Some(at), None),
            Some(PauseEnd::After(after)) => (None, Some(after.as_seconds_f64())),
            None => (None, None),
        };
        let Some(resume_at) = sql::pause(&mut *tx, queue, at, after_s, order).await? else {
            return Ok(Pausing::EndIsPast);
        };
        let filter =
            resume_at.map(|until| json!({"until": OffsetDateTime::from(until).format(&Rfc3339).unwrap_or_default()}));
        audit::record(&mut *tx, order, "pause", queue, filter, 1).await?;
        tx.commit().await?;
        Ok(Pausing::Paused)
    }

    /// Resumes a queue at once. Returns whether it was paused.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn resume(&self, queue: &str, order: &Order) -> Result<bool, Error> {
        let mut tx = self.queue.begin().await?;
        if !sql::resume(&mut *tx, queue).await? {
            return Ok(false);
        }
        audit::record(&mut *tx, order, "resume", queue, None, 1).await?;
        tx.commit().await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_end_of_a_pause_is_a_time_or_a_duration() {
        for (text, end) in [
            ("30m", PauseEnd::After(Duration::minutes(30))),
            ("2h", PauseEnd::After(Duration::hours(2))),
            ("1d", PauseEnd::After(Duration::days(1))),
            ("999999d", PauseEnd::After(Duration::days(999_999))),
            ("2026-11-28T13:00:00+00:30", PauseEnd::At(datetime!(2026-11-28 12:30 UTC))),
        ] {
            assert_eq!(text.parse(), Ok(end), "{text}");
        }
        for text in
            ["", "m", "-1h", "2 h", "1000000d", "4294967296d", "2026-11-28", "0s", "1é", "9999-12-31T23:59:59-01:00"]
        {
            assert!(text.parse::<PauseEnd>().is_err(), "{text}");
        }
    }

    #[test]
    fn hostile_ends_of_a_pause_can_be_stored_and_shown() -> Result<(), hostile::Failure> {
        let grammar =
            "[0-9]{1,10}[smhd]|[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](Z|[+-][0-2][0-9]:00)";
        hostile::check_text(include_str!("../../../../tests/corpora/duration.txt"), grammar, |text| {
            match text.parse() {
                Ok(PauseEnd::At(at)) => {
                    prop_assert!(at.offset().is_utc() && at.year() <= 9999, "{}", at);
                    prop_assert_eq!(at.format(&Rfc3339).map(|shown| shown.parse()).ok(), Some(Ok(PauseEnd::At(at))));
                }
                Ok(PauseEnd::After(after)) => {
                    prop_assert!(after.is_positive() && after <= PauseEnd::LONGEST, "{}", after);
                }
                Err(_) => {}
            }
            Ok(())
        })
    }
}
