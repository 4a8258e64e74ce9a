//! Values that PostgreSQL can store: texts, keys and delays from handlers, decoders and requests; and times of rows.
//!
//! PostgreSQL refuses the whole statement for one bad value, and with it the results of all other runs in the
//! statement.

use std::{fmt, time::Duration};

use sha2::{Digest, Sha256};
use sqlx::{
    Decode, Postgres, Type,
    error::BoxDynError,
    postgres::{PgTypeInfo, PgValueFormat, PgValueRef},
};
use time::{OffsetDateTime, macros::datetime};

/// A text that PostgreSQL can store and an operator can read: without NUL, at most 4,000 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StorableText(String);

impl StorableText {
    const LONGEST: usize = 4000;

    /// The text as a string slice.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for StorableText {
    fn from(text: T) -> Self {
        let text = text.into();
        let clean = if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text };
        if clean.len() <= Self::LONGEST {
            return Self(clean);
        }
        let end = clean.floor_char_boundary(Self::LONGEST - '…'.len_utf8());
        Self(format!("{}…", &clean[..end]))
    }
}

impl fmt::Display for StorableText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key that an index can hold. A key with NUL, or longer than 1,000 bytes, is replaced by its digest.
pub(crate) fn storable_key(key: &str) -> String {
    const LONGEST: usize = 1000;
    if key.len() <= LONGEST && !key.contains('\0') {
        return key.to_owned();
    }
    let digest = Sha256::digest(key);
    digest.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// The longest delay that is stored, 100 years. A longer one would end after the last time that can be displayed.
const LONGEST_WAIT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A delay in seconds, limited for use as an interval.
pub(crate) fn wait_seconds(wait: Duration) -> f64 {
    wait.min(LONGEST_WAIT).as_secs_f64()
}

/// The first and the last time that all our formats can display.
const FIRST: OffsetDateTime = datetime!(0001-01-01 0:00 UTC);
const LAST: OffsetDateTime = datetime!(9999-12-31 23:59:59 UTC);
/// The time from which PostgreSQL counts microseconds.
const EPOCH: OffsetDateTime = datetime!(2000-01-01 0:00 UTC);

/// Limits a time to what PostgreSQL can store and all our formats can display.
pub(crate) fn storable_time(time: OffsetDateTime) -> OffsetDateTime {
    time.clamp(FIRST, LAST)
}

/// A time of a row. Other programs may write `infinity` or the year 20000, on which the crate `time` makes sqlx panic.
/// They are read as the nearest time that can be displayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTime(OffsetDateTime);

impl From<ReadTime> for OffsetDateTime {
    fn from(time: ReadTime) -> Self {
        time.0
    }
}

impl Type<Postgres> for ReadTime {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for ReadTime {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        // Only statements without parameters return text; all of ours are prepared.
        if value.format() == PgValueFormat::Text {
            return Ok(Self(storable_time(<OffsetDateTime as Decode<Postgres>>::decode(value)?)));
        }
        let microseconds = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        let time = EPOCH.checked_add(time::Duration::microseconds(microseconds));
        Ok(Self(time.map_or(if microseconds < 0 { FIRST } else { LAST }, storable_time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_can_be_stored() {
        for (text, stored) in [("plain", "plain"), ("a\0b\0", "a\u{FFFD}b\u{FFFD}"), ("", "")] {
            assert_eq!(StorableText::from(text).as_str(), stored);
        }
        for long in ["ä".repeat(100_000), "\0".repeat(4000), "x".repeat(4001), "😀".repeat(1001)] {
            let stored = StorableText::from(long);
            let text = stored.as_str();
            assert!(
                (3990..=4000).contains(&text.len()) && text.ends_with('…') && !text.contains('\0'),
                "{}",
                text.len()
            );
        }
    }

    #[test]
    fn keys_can_be_stored_and_stay_distinct() {
        assert_eq!(storable_key("bitcoin@2026-11-28"), "bitcoin@2026-11-28");
        let odd = ["a\0".to_owned(), "a\0\0".to_owned(), "k".repeat(1001), "k".repeat(5000)];
        let stored: Vec<String> = odd.iter().map(|key| storable_key(key)).collect();
        assert!(stored.iter().all(|key| key.len() == 71 && key.starts_with("sha256:")), "{stored:?}");
        assert!((1..stored.len()).all(|n| !stored[..n].contains(&stored[n])), "{stored:?}");
    }

    #[test]
    fn waits_and_times_can_be_stored() {
        assert_eq!(wait_seconds(Duration::from_millis(1500)), 1.5);
        for endless in [Duration::MAX, Duration::from_secs(u64::MAX)] {
            assert_eq!(wait_seconds(endless), LONGEST_WAIT.as_secs_f64());
        }
        assert_eq!(storable_time(OffsetDateTime::UNIX_EPOCH), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(storable_time(datetime!(-9999-01-01 0:00 UTC)), FIRST);
    }
}
