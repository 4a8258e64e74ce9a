//! Positions in lists of fires, from which the next page continues.

use std::{fmt, str::FromStr};

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// A position in a list of fires: newest first, and by schedule if several fire at one time. Its text is
/// `SCHEDULE@TIME`, or only the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirePosition {
    pub time: OffsetDateTime,
    /// The fires of later schedules at this time follow the position; with `None` only earlier times do.
    pub schedule: Option<String>,
}

impl fmt::Display for FirePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schedule) = &self.schedule {
            write!(f, "{schedule}@")?;
        }
        f.write_str(&self.time.format(&Rfc3339).unwrap_or_default())
    }
}

impl FromStr for FirePosition {
    type Err = String;

    /// # Errors
    /// When the text has no time in RFC 3339, or its UTC form is in no year from 0 to 9999. The text of the error says what
    /// it must be.
    fn from_str(text: &str) -> Result<Self, String> {
        let (schedule, time) = text.rsplit_once('@').map_or((None, text), |(name, time)| (Some(name), time));
        let time = OffsetDateTime::parse(time, &Rfc3339).ok().and_then(|time| time.checked_to_offset(UtcOffset::UTC));
        let time = time.filter(|time| (0..=9999).contains(&time.year()));
        let time = time.ok_or("must be a time such as 2026-12-01T14:00:00Z")?;
        Ok(Self { time, schedule: schedule.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for text in ["2026-12-01T14:00:00Z", "daily_prices@2026-12-01T14:00:00.000001Z", "a@b@2026-12-01T14:00:00Z"] {
            assert_eq!(text.parse::<FirePosition>().map(|position| position.to_string()).as_deref(), Ok(text));
        }
        let moved = "2026-12-01T14:00:00+02:00".parse::<FirePosition>().map(|position| position.to_string());
        assert_eq!(moved.as_deref(), Ok("2026-12-01T12:00:00Z"));
        for text in ["", "x", "daily_prices@", "2026-12-01", "0000-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"] {
            let problem = text.parse::<FirePosition>().map(|position| position.to_string());
            assert!(problem.is_err_and(|must| must.starts_with("must be a time")), "{text}");
        }
    }
}
