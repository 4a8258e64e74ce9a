//! Cron expressions: six fields, seconds first, in UTC regardless of the machine's time zone.

use std::fmt;

use chrono::{DateTime, Utc};
use croner::parser::{CronParser, Seconds};
use time::OffsetDateTime;

/// A cron expression that has a next time.
#[derive(Clone)]
pub struct Cron {
    text: String,
    pattern: croner::Cron,
}

impl Cron {
    /// Parses an expression. Uses the scheduler's own parser and settings, so that both see the same times.
    ///
    /// # Errors
    /// A description of a valid expression.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build();
        let pattern = parser.parse(text).map_err(|_| {
            "must be a cron expression of six fields, seconds first and in UTC, such as 0 15 0 * * *".to_owned()
        })?;
        let cron = Self { text: text.to_owned(), pattern };
        match cron.next(OffsetDateTime::now_utc()) {
            Some(_) => Ok(cron),
            None => Err("must be a cron expression that has a next time, such as 0 15 0 * * *".into()),
        }
    }

    /// The text of the expression.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the first nominal time after this one.
    pub fn next(&self, after: OffsetDateTime) -> Option<OffsetDateTime> {
        self.pattern.find_next_occurrence(&to_chrono(after)?, false).ok().and_then(from_chrono)
    }

    /// Returns the latest nominal time that is not after this one.
    pub fn latest(&self, at: OffsetDateTime) -> Option<OffsetDateTime> {
        self.pattern.find_previous_occurrence(&to_chrono(at)?, true).ok().and_then(from_chrono)
    }

    /// Returns the nominal times after `after` and not after `until`, in order. Of more than `limit`, the latest ones.
    pub fn between(&self, after: OffsetDateTime, until: OffsetDateTime, limit: usize) -> Vec<OffsetDateTime> {
        let mut times: Vec<OffsetDateTime> = Vec::new();
        let mut next = self.latest(until);
        while let Some(time) = next.filter(|time| *time > after && times.len() < limit) {
            times.push(time);
            // Nominal times are whole seconds.
            next = self.latest(time - time::Duration::SECOND);
        }
        times.reverse();
        times
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({})", self.text)
    }
}

/// The second that a time is in, as a `chrono` time.
fn to_chrono(time: OffsetDateTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.unix_timestamp(), 0)
}

fn from_chrono(time: DateTime<Utc>) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(time.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn cron(text: &str) -> Cron {
        Cron::parse(text).expect(text)
    }

    #[test]
    fn times_are_in_utc_and_whole_seconds() {
        let daily = cron("0 15 0 * * *");
        assert_eq!(daily.next(datetime!(2026-11-21 00:14:59.9 UTC)), Some(datetime!(2026-11-21 00:15 UTC)));
        assert_eq!(daily.next(datetime!(2026-11-21 00:15 UTC)), Some(datetime!(2026-11-22 00:15 UTC)));
        assert_eq!(daily.next(datetime!(2026-11-21 02:14 +2)), Some(datetime!(2026-11-21 00:15 UTC)));
        for now in [datetime!(2026-11-21 00:15 UTC), datetime!(2026-11-21 00:15:00.7 UTC)] {
            assert_eq!(daily.latest(now), Some(datetime!(2026-11-21 00:15 UTC)));
        }
        assert_eq!(daily.latest(datetime!(2026-11-21 00:14:59 UTC)), Some(datetime!(2026-11-20 00:15 UTC)));
        let leap = cron("0 0 12 29 2 *");
        assert_eq!(leap.next(datetime!(2026-11-21 0:00 UTC)), Some(datetime!(2028-02-29 12:00 UTC)));
    }

    #[test]
    fn nominal_times_between_are_complete_and_limited() {
        let even = cron("*/2 * * * * *");
        let (from, to) = (datetime!(2026-11-21 23:59:54 UTC), datetime!(2026-11-22 0:00:02.5 UTC));
        let seconds: Vec<u8> = even.between(from, to, 100).iter().map(|time| time.second()).collect();
        assert_eq!(seconds, [56, 58, 0, 2]);
        let last: Vec<u8> = even.between(from, to, 2).iter().map(|time| time.second()).collect();
        assert_eq!(last, [0, 2]);
        assert!(even.between(to, from, 100).is_empty());
        // Searching forwards and backwards finds the same times.
        for (text, years) in [
            ("*/7 3 * * * *", 0),
            ("0 30 6 * * MON-FRI", 1),
            ("0 0 0 L * *", 9),
            ("0 15 0 1 1,7 *", 9),
            ("0 0 0 29 2 *", 9),
        ] {
            let cron = cron(text);
            let from = datetime!(2026-01-31 5:06:07 UTC);
            let to = from + time::Duration::days(30 + 365 * years);
            let forwards: Vec<_> =
                std::iter::successors(cron.next(from), |time| cron.next(*time)).take_while(|t| *t <= to).collect();
            assert_eq!(cron.between(from, to, 100_000), forwards, "{text}");
        }
    }

    #[test]
    fn errors_contain_a_valid_expression() {
        for wrong in ["", "15 0 * * *", "0 60 0 * * *", "@every 5m", "0 15 0 * * * * *", "x", "0 0 0 30 2 *"] {
            let problem = Cron::parse(wrong).expect_err(wrong);
            assert!(problem.contains("such as 0 15 0 * * *"), "{wrong}: {problem}");
        }
    }
}
