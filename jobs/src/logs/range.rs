//! The time range of an export.

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// A half-open time range: `from` is included, `to` is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub(super) from: OffsetDateTime,
    pub(super) to: OffsetDateTime,
}

impl Range {
    /// Creates a range; `None` if `to` is before `from`.
    pub fn new(from: OffsetDateTime, to: OffsetDateTime) -> Option<Self> {
        (from <= to).then_some(Self { from, to })
    }

    /// The first instant of the range.
    pub fn from(&self) -> OffsetDateTime {
        self.from
    }

    /// The first instant after the range.
    pub fn to(&self) -> OffsetDateTime {
        self.to
    }
}

/// Formats a time in UTC as RFC 3339.
pub(super) fn format_time(time: OffsetDateTime) -> String {
    time.to_offset(UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}
