//! Times as query parameters.

use poem_openapi::registry::MetaSchema;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use super::{FieldError, QueryValue};

/// A time in RFC 3339, converted to UTC.
pub(crate) struct Moment;

impl QueryValue for Moment {
    type Out = OffsetDateTime;

    fn schema() -> MetaSchema {
        MetaSchema {
            example: Some("2024-01-15T10:30:00Z".into()),
            ..MetaSchema::new_with_format("string", "date-time")
        }
    }

    fn read(text: &str) -> Result<OffsetDateTime, FieldError> {
        // If the client did not percent-encode the `+` of an offset, it arrives as a blank.
        let parsed = OffsetDateTime::parse(text, &Rfc3339)
            .or_else(|_| OffsetDateTime::parse(&text.replacen(' ', "+", usize::from(text.contains('T'))), &Rfc3339));
        let utc = parsed.ok().and_then(|time| time.checked_to_offset(UtcOffset::UTC)).filter(|time| time.year() >= 0);
        utc.ok_or_else(|| {
            FieldError::new(
                "datetime_parsing",
                "Input should be a valid datetime, in RFC 3339 with an offset, such as 2024-01-15T10:30:00Z",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;
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
            assert_eq!(Moment::read(text), Ok(time), "{text}");
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
    fn hostile_times_are_refused_or_in_utc() -> Result<(), hostile::Failure> {
        let grammar = "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,9})?(Z|[+ -][0-2][0-9]:[0-5][0-9])";
        hostile::check_text(include_str!("../../../tests/corpora/duration.txt"), grammar, |text| {
            let Ok(time) = Moment::read(text) else { return Ok(()) };
            prop_assert!(time.offset().is_utc() && (0..=9999).contains(&time.year()), "{}", time);
            prop_assert_eq!(Moment::read(&time.format(&Rfc3339).unwrap_or_default()), Ok(time));
            // The minutes and seconds, as far as the offset has whole hours.
            if text.ends_with(":00") || text.ends_with('Z') {
                prop_assert_eq!(text.get(14..16).and_then(|minute| minute.parse().ok()), Some(time.minute()));
            }
            Ok(())
        })
    }
}
