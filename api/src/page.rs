//! Pages of a list: their size, the cursors of the `Link` header, and the entry that shows whether there is a next page.

use std::marker::PhantomData;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use poem_openapi::registry::MetaSchema;

use crate::{
    link,
    validation::{FieldError, Integer, QueryValue, integer_schema},
};

/// The alphabet of URL-safe base64.
const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The largest number of entries on a page, from 1 to `MAX`; `DEFAULT` without a parameter. `T` holds all of them.
pub(crate) struct PageLimit<const MAX: i64, const DEFAULT: i64, T>(PhantomData<T>);

/// The largest number of entries on a page of most lists.
pub(crate) type Limit = PageLimit<100, 20, u8>;

impl<const MAX: i64, const DEFAULT: i64, T: TryFrom<i64>> QueryValue for PageLimit<MAX, DEFAULT, T> {
    type Out = T;

    const REQUIRED: bool = false;

    fn schema() -> MetaSchema {
        MetaSchema { default: Some(DEFAULT.into()), ..integer_schema(1, MAX) }
    }

    fn read(text: &str) -> Result<T, FieldError> {
        <Integer<1, MAX, T> as QueryValue>::read(text)
    }

    fn when_absent() -> Option<T> {
        T::try_from(DEFAULT).ok()
    }
}

/// The number of entries to skip before the page.
pub(crate) struct Skip;

impl QueryValue for Skip {
    type Out = i64;

    const REQUIRED: bool = false;

    fn schema() -> MetaSchema {
        MetaSchema { format: Some("int64"), default: Some(0.into()), ..integer_schema(0, i64::MAX) }
    }

    fn read(text: &str) -> Result<i64, FieldError> {
        <Integer<0, { i64::MAX }> as QueryValue>::read(text)
    }

    fn when_absent() -> Option<i64> {
        Some(0)
    }
}

/// A cursor of `BYTES` bytes in URL-safe base64, which clients get in a `Link` header and send back. It is opaque to
/// clients: its form may change.
pub(crate) struct Cursor<const BYTES: usize>;

impl<const BYTES: usize> QueryValue for Cursor<BYTES> {
    type Out = [u8; BYTES];

    fn schema() -> MetaSchema {
        let (whole, spare) = (BYTES * 8 / 6, BYTES * 8 % 6);
        // The last digit encodes fewer than six bits.
        let last: String = DIGITS.chars().step_by(1 << (6 - spare)).collect();
        let last = if spare == 0 { String::new() } else { format!("[{last}]") };
        let pattern = format!("^[A-Za-z0-9_-]{{{whole}}}{last}$");
        MetaSchema { pattern: Some(pattern), ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<[u8; BYTES], FieldError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| FieldError::value_error("cursor must be one that a Link header gave"))
    }
}

fn encode<const BYTES: usize>(cursor: [u8; BYTES]) -> String {
    URL_SAFE_NO_PAD.encode(cursor)
}

/// The number of entries to fetch for a page: one more than it holds, which shows whether there is a next page.
pub(crate) fn fetch_limit(limit: impl Into<u32>) -> u32 {
    limit.into() + 1
}

/// Cuts off the entry that is not on the page. If there was one, returns the `Link` header for the next page: `path` with
/// the other parameters, and the cursor of the last entry.
pub(crate) fn next_link<T, const BYTES: usize>(
    found: &mut Vec<T>,
    limit: impl Into<usize>,
    path: &str,
    cursor: impl FnOnce(&T) -> [u8; BYTES],
) -> Option<String> {
    let limit = limit.into();
    if found.len() <= limit {
        return None;
    }
    found.truncate(limit);
    let (limit, cursor) = (limit.to_string(), encode(cursor(found.last()?)));
    Some(link::next_link(path, &[("limit", Some(&limit)), ("cursor", Some(&cursor))]))
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_survives_a_round_trip() {
        for bytes in [[0; 16], [255; 16], *b"sixteen letters!"] {
            let text = encode(bytes);
            assert_eq!(Cursor::read(&text), Ok(bytes));
            assert!(text.chars().all(|c| DIGITS.contains(c)), "{text}");
        }
    }

    #[test]
    fn rejects_invalid_cursors() {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        for text in [&encode(b"x"), &encode(b"fifteen letters"), &encode(&[0; 17]), "", "%%%", "AAAAAAAAAAAAAAAAAAAAAB"]
        {
            assert!(Cursor::<16>::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_pattern_matches_exactly_the_cursors() {
        let pattern = |schema: MetaSchema| schema.pattern.unwrap_or_default();
        assert_eq!(pattern(Cursor::<16>::schema()), "^[A-Za-z0-9_-]{21}[AQgw]$");
        assert_eq!(pattern(Cursor::<8>::schema()), "^[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]$");
    }

    #[test]
    fn the_next_link_repeats_the_query() {
        let link = |count: u8, path| {
            let mut found: Vec<u8> = (0..count).collect();
            let link = next_link(&mut found, 5_u8, path, |last| [*last; 16]);
            (found.len(), link)
        };
        let next = encode([4; 16]);
        let expected = format!("</v1/transactions?status=FAILED&limit=5&cursor={next}>; rel=\"next\"");
        assert_eq!(link(6, "/v1/transactions?status=FAILED"), (5, Some(expected)));
        let expected = format!("</v1/transactions?limit=5&cursor={next}>; rel=\"next\"");
        assert_eq!(link(6, "/v1/transactions"), (5, Some(expected)));
        for count in [0, 4, 5] {
            assert_eq!(link(count, "/v1/transactions"), (count.into(), None), "the last page");
        }
    }

    fn kind<T: QueryValue>(text: &str) -> &'static str {
        T::read(text.trim()).map_or_else(|error| error.kind, |_| "ok")
    }

    #[test]
    fn accepts_a_limit_of_1_to_100() {
        for (text, expected) in [
            ("1", "ok"),
            ("100", "ok"),
            ("101", "less_than_equal"),
            ("0", "greater_than_equal"),
            ("ten", "int_parsing"),
            ("1.5", "int_parsing"),
            ("1.0", "ok"),
            ("+7", "ok"),
            (" 7 ", "ok"),
            ("99999999999999999999", "less_than_equal"),
            ("-99999999999999999999", "greater_than_equal"),
            ("", "int_parsing"),
        ] {
            assert_eq!(kind::<Limit>(text), expected, "{text}");
        }
    }

    #[test]
    fn accepts_a_skip_of_0_or_more() {
        for (text, expected) in [
            ("0", "ok"),
            ("-0", "ok"),
            ("1.0", "ok"),
            ("9223372036854775807", "ok"),
            ("9223372036854775808", "less_than_equal"),
            ("99999999999999999999", "less_than_equal"),
            ("-1", "greater_than_equal"),
            ("ten", "int_parsing"),
            ("1.5", "int_parsing"),
            ("-", "int_parsing"),
        ] {
            assert_eq!(kind::<Skip>(text), expected, "{text}");
        }
    }

    /// A cursor has one spelling: what is read is what would be given out.
    fn check_cursor<const BYTES: usize>(text: &str) -> hostile::Property {
        if let Ok(bytes) = Cursor::<BYTES>::read(text) {
            prop_assert_eq!(encode(bytes), text);
        }
        Ok(())
    }

    #[test]
    fn hostile_cursors_are_refused_or_positions() -> Result<(), hostile::Failure> {
        hostile::check_text(
            include_str!("../../tests/corpora/cursor.txt"),
            "[A-Za-z0-9_-]{11}|[A-Za-z0-9_-]{22}",
            |text| {
                check_cursor::<16>(text)?;
                check_cursor::<8>(text)
            },
        )?;
        hostile::check(any::<[u8; 16]>(), |bytes| {
            prop_assert_eq!(Cursor::read(&encode(*bytes)), Ok(*bytes));
            Ok(())
        })
    }

    #[test]
    fn hostile_numbers_of_pages_stay_within_their_limits() -> Result<(), hostile::Failure> {
        hostile::check_text(
            include_str!("../../tests/corpora/number.txt"),
            " ?[+-]?[0-9_]{1,20}(\\.0{0,3})? ?",
            |text| {
                let plain = text.trim().parse::<i128>();
                let limit = Limit::read(text);
                prop_assert!(limit.as_ref().is_ok_and(|limit| (1..=100).contains(limit)) || limit.is_err());
                let skip = Skip::read(text);
                prop_assert!(skip.as_ref().is_ok_and(|skip| *skip >= 0) || skip.is_err());
                if let Ok(number) = plain {
                    prop_assert_eq!(
                        limit.ok().map(i128::from),
                        Some(number).filter(|number| (1..=100).contains(number))
                    );
                    let most = i128::from(i64::MAX);
                    prop_assert_eq!(
                        skip.ok().map(i128::from),
                        Some(number).filter(|number| (0..=most).contains(number))
                    );
                } else if let Ok(skip) = skip {
                    // Other spellings: `7.0`, `1_000`.
                    let (whole, zeros) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
                    let digits = whole.replace('_', "");
                    prop_assert_eq!(digits.parse::<i64>().ok(), Some(skip));
                    prop_assert!(zeros.bytes().all(|byte| byte == b'0') && !zeros.is_empty());
                }
                Ok(())
            },
        )
    }
}
