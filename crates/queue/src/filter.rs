//! Which jobs an operator means.

use std::{fmt, str::FromStr, time::Duration};

use time::OffsetDateTime;
use ulid::Ulid;

use super::{
    status::State,
    store::list::{END, Page},
};
use runtime::duration::{UNITS, parse_duration};

/// Which jobs to list or to cancel. Every condition that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub queue: Option<String>,
    pub state: Option<State>,
    /// A text that the last error contains.
    pub error: Option<String>,
    /// A group of errors; the empty text means jobs without a group.
    pub group: Option<String>,
    /// Only jobs that were enqueued longer ago, by the clocks of the processes that enqueued them.
    pub older_than: Option<Age>,
    /// The worker that runs it or ran it last.
    pub worker: Option<String>,
    /// Only jobs with at least so many runs.
    pub attempts: Option<i32>,
    /// Its [unique](super::NewJob::unique) key.
    pub key: Option<String>,
    /// Only ids before this one, such as the last id of the previous page.
    pub before: Option<String>,
}

impl Filter {
    /// The conditions as parameters of a query, without `before`; those that are not set are left out.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let parameters = [
            ("queue", self.queue.clone()),
            ("state", self.state.map(|state| state.as_str().to_owned())),
            ("error", self.error.clone()),
            ("group", self.group.clone()),
            ("older_than", self.older_than.map(|age| age.to_string())),
            ("worker", self.worker.clone()),
            ("attempts", self.attempts.map(|attempts| attempts.to_string())),
            ("key", self.key.clone()),
        ];
        parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Ids before this one are meant.
    pub(super) fn before(&self, now: OffsetDateTime) -> String {
        let before = self.before.clone().unwrap_or_else(|| END.to_owned());
        let Some(Age(age)) = self.older_than else { return before };
        let milliseconds = (now - age).unix_timestamp_nanos() / 1_000_000;
        before.min(Ulid::from_parts(u64::try_from(milliseconds).unwrap_or(0), 0).to_string())
    }

    /// The page that begins before this id.
    pub(super) fn page<'a>(&'a self, before: &'a str, limit: i64) -> Page<'a> {
        Page {
            queue: self.queue.as_deref(),
            status: self.state.map(State::status),
            error: self.error.as_deref(),
            group: self.group.as_deref(),
            worker: self.worker.as_deref(),
            attempts: self.attempts,
            key: self.key.as_deref(),
            before,
            limit,
        }
    }
}

/// A duration such as `30m`, `2h` or `1d`, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age(Duration);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let age = parse_duration(text).map_err(|_| "must be a duration such as 30m, 2h or 1d")?;
        Ok(Self(age.unsigned_abs().min(MAX_AGE)))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = UNITS.map(|(name, unit)| (name, u64::from(unit)));
        let exact = units.into_iter().rev().find(|(_, unit)| seconds.is_multiple_of(*unit));
        let (name, unit) = exact.unwrap_or(units[0]);
        write!(f, "{}{name}", seconds / unit)
    }
}

/// A hundred years: no job is older.
const MAX_AGE: Duration = Duration::from_secs(36_500 * 86_400);

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_age_is_a_number_with_a_unit() {
        for (text, shown) in
            [("30m", "30m"), ("120m", "2h"), ("86400s", "1d"), ("90s", "90s"), ("4294967295d", "36500d")]
        {
            assert_eq!(text.parse::<Age>().map(|age| age.to_string()), Ok(shown.into()), "{text}");
        }
        for text in ["", "m", "-1h", "+1h", "2 h", "4294967296d", "1w", "1é"] {
            assert!(text.parse::<Age>().is_err(), "{text}");
        }
    }

    #[test]
    fn older_jobs_have_smaller_ids() {
        let now = datetime!(2026-11-28 12:00 UTC);
        let older = Filter { older_than: "1h".parse().ok(), ..Filter::default() };
        let id = |time: OffsetDateTime| Ulid::from_parts((time.unix_timestamp() * 1000) as u64, 7).to_string();
        assert!(
            id(now - Duration::from_secs(3601)) < older.before(now)
                && id(now - Duration::from_secs(3600)) > older.before(now)
        );
        assert_eq!(Filter { before: Some("0".into()), ..older }.before(now), "0");
        assert_eq!(Filter::default().before(now), END);
    }

    #[test]
    fn parameters_are_those_that_are_set() {
        let filter =
            Filter { state: Some(State::Dead), attempts: Some(3), before: Some("x".into()), ..Filter::default() };
        assert_eq!(filter.parameters(), [("state", "dead".to_owned()), ("attempts", "3".to_owned())]);
    }
}
