//! Wire types of the log export: times, formats and file names.

use jobs::logs::{self, Range};
use poem_openapi::registry::MetaSchema;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use crate::validation::{FieldError, QueryValue};

/// A time in RFC 3339, converted to UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(pub(super) OffsetDateTime);

impl QueryValue for Moment {
    fn schema() -> MetaSchema {
        MetaSchema {
            example: Some("2024-01-15T10:30:00Z".into()),
            ..MetaSchema::new_with_format("string", "date-time")
        }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        // If the client did not percent-encode the `+` of an offset, it arrives as a blank.
        let parsed = OffsetDateTime::parse(text, &Rfc3339)
            .or_else(|_| OffsetDateTime::parse(&text.replacen(' ', "+", usize::from(text.contains('T'))), &Rfc3339));
        let utc = parsed.ok().and_then(|time| time.checked_to_offset(UtcOffset::UTC)).filter(|time| time.year() >= 0);
        utc.map(Self).ok_or_else(|| {
            FieldError::new(
                "datetime_parsing",
                "Input should be a valid datetime, in RFC 3339 with an offset, such as 2024-01-15T10:30:00Z",
            )
        })
    }
}

/// The format of the lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Format(pub(super) logs::Format);

impl QueryValue for Format {
    fn schema() -> MetaSchema {
        MetaSchema {
            enum_items: vec!["jsonl".into(), "jsonl.gz".into()],
            default: Some("jsonl".into()),
            ..MetaSchema::new("string")
        }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        match text {
            "jsonl" => Ok(Self(logs::Format::Lines)),
            "jsonl.gz" => Ok(Self(logs::Format::Gzip)),
            _ => Err(FieldError::new("enum", "Input should be 'jsonl' or 'jsonl.gz'")),
        }
    }
}

/// The text of a time in an error message.
pub(super) fn format_time(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// The file name of an export, valid on every operating system.
pub(super) fn file_name(range: &Range, format: logs::Format) -> String {
    let plain = |time: OffsetDateTime| {
        let (year, month, day) = time.to_calendar_date();
        let (hour, minute, second) = time.to_hms();
        format!("{year:04}{:02}{day:02}T{hour:02}{minute:02}{second:02}Z", u8::from(month))
    };
    let ending = match format {
        logs::Format::Lines => "jsonl",
        logs::Format::Gzip => "jsonl.gz",
    };
    format!("millrace-logs-{}-{}.{ending}", plain(range.from()), plain(range.to()))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn requires_a_time_with_an_offset() {
        for (text, time) in [
            ("2024-01-15T10:30:00Z", datetime!(2024-01-15 10:30 UTC)),
            ("2024-01-15T10:30:00.25+02:00", datetime!(2024-01-15 08:30:00.25 UTC)),
            ("2024-01-15T10:30:00 02:00", datetime!(2024-01-15 08:30 UTC)),
            ("2024-01-15T10:30:00-02:00", datetime!(2024-01-15 12:30 UTC)),
        ] {
            assert_eq!(Moment::read(text), Ok(Moment(time)), "{text}");
        }
        for text in [
            "yesterday",
            "2024-01-15",
            "2024-01-15T10:30:00",
            "2024-02-30T10:30:00Z",
            "1705314600",
            "é",
            "9999-12-31T23:59:59-02:00",
            "0000-01-01T00:00:00+02:00",
        ] {
            assert!(Moment::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_file_name_has_range_and_format() {
        let range = Range::new(datetime!(2024-01-15 10:30 UTC), datetime!(2024-01-16 0:00 UTC)).expect("a range");
        let name = file_name(&range, logs::Format::Gzip);
        assert_eq!(name, "millrace-logs-20240115T103000Z-20240116T000000Z.jsonl.gz");
    }
}
