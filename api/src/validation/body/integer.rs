//! Whole numbers in Pydantic's lax mode: `5`, `5.0`, `"5"`, `" 5 "` and `true`, never through a float.

use std::ops::RangeInclusive;

use super::{Fields, fields::string};
use crate::validation::Wrong;

/// More digits than this are out of every range; longer texts are refused unread.
const DIGITS: usize = 19;

impl Fields<'_> {
    /// A whole number within a range.
    pub fn integer(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        self.field(name, |raw| integer(raw, &range))
    }

    /// A whole number within a range, that may be absent or null.
    pub fn optional_integer(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Option<Option<i64>> {
        self.optional(name, |raw| integer(raw, &range))
    }
}

/// Reads the raw JSON of a whole number.
fn integer(raw: &str, range: &RangeInclusive<i64>) -> Result<i64, Wrong> {
    let (least, most) = (*range.start(), *range.end());
    let number = match string(raw) {
        Some(text) => from_text(&text?).ok_or_else(|| {
            Wrong::new("int_parsing", "Input should be a valid integer, unable to parse string as an integer")
        })?,
        None => match raw {
            "true" => Number::Whole(1),
            "false" => Number::Whole(0),
            _ if raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => decimal(raw).ok_or_else(|| {
                let msg = "Input should be a valid integer, got a number with a fractional part";
                Wrong::new("int_from_float", msg)
            })?,
            _ => return Err(Wrong::new("int_type", "Input should be a valid integer")),
        },
    };
    match number {
        Number::BelowAll => Err(Wrong::below(least)),
        Number::AboveAll => Err(Wrong::above(most)),
        Number::Whole(number) if number < least => Err(Wrong::below(least)),
        Number::Whole(number) if number > most => Err(Wrong::above(most)),
        Number::Whole(number) => Ok(number),
    }
}

/// A whole number, of any size.
enum Number {
    Whole(i64),
    BelowAll,
    AboveAll,
}

/// Reads a JSON number, with or without an exponent; `None` when it has a fractional part.
fn decimal(raw: &str) -> Option<Number> {
    let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, places) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{places}");
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some(Number::Whole(0));
    }
    // An exponent beyond what fits here is as good as infinite, either way.
    let infinite = if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
    let exponent: i64 = exponent.parse().unwrap_or(infinite).clamp(i64::MIN / 2, i64::MAX / 2);
    let zeros = exponent.saturating_sub_unsigned(places.len() as u64);
    let zeros = zeros.saturating_add_unsigned((digits.len() - significant.len()) as u64);
    let zeros = usize::try_from(zeros).ok()?;
    Some(sized(sign, significant, zeros))
}

/// Reads a text: a sign, digits, underscores between them, and a decimal part of zeros at most.
fn from_text(text: &str) -> Option<Number> {
    let text = text.trim();
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let text = if sign.is_empty() { text.strip_prefix('+').unwrap_or(text) } else { text };
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !whole.split('_').all(digits) || places.is_empty() || !places.bytes().all(|byte| byte == b'0') {
        return None;
    }
    Some(sized(sign, &whole.replace('_', ""), 0))
}

/// The number that these digits and so many zeros after them make.
fn sized(sign: &str, digits: &str, zeros: usize) -> Number {
    let digits = digits.trim_start_matches('0');
    let beyond = if sign.is_empty() { Number::AboveAll } else { Number::BelowAll };
    if digits.len().saturating_add(zeros) > DIGITS {
        return beyond;
    }
    format!("{sign}0{digits}{}", "0".repeat(zeros)).parse().map_or(beyond, Number::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_pydantic_reads() {
        for (raw, value) in [
            ("5", 5),
            ("5.0", 5),
            ("5.000", 5),
            ("\"5\"", 5),
            ("\" 5 \"", 5),
            ("\"5.0\"", 5),
            ("\"+5\"", 5),
            ("\"1_000\"", 1000),
            ("\"007\"", 7),
            ("true", 1),
            ("false", 0),
            ("-0", 0),
            ("0.0e99", 0),
            ("1e2", 100),
            ("1.5e1", 15),
            ("500e-2", 5),
            ("9007199254740993.0", 9_007_199_254_740_993),
            ("9223372036854775807", i64::MAX),
            ("\"9223372036854775807\"", i64::MAX),
        ] {
            assert_eq!(integer(raw, &(0..=i64::MAX)), Ok(value), "{raw}");
        }
        assert_eq!(integer("-9223372036854775808", &(i64::MIN..=0)), Ok(i64::MIN));
        assert_eq!(integer("\"-3\"", &(-5..=5)), Ok(-3));
    }

    #[test]
    fn refuses_the_rest_in_pydantics_words() {
        for (raw, kind, msg) in [
            ("5.5", "int_from_float", "Input should be a valid integer, got a number with a fractional part"),
            ("1e-1", "int_from_float", "Input should be a valid integer, got a number with a fractional part"),
            (
                "1e-99999999999999999999",
                "int_from_float",
                "Input should be a valid integer, got a number with a fractional part",
            ),
            ("\"5.5\"", "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
            ("\"\"", "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
            ("\"1e2\"", "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
            ("\"+-1\"", "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
            ("\"-+1\"", "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
            ("\"1__0\"", "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
            ("\"5.\"", "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
            ("null", "int_type", "Input should be a valid integer"),
            ("[]", "int_type", "Input should be a valid integer"),
            ("{}", "int_type", "Input should be a valid integer"),
            ("-1", "greater_than_equal", "Input should be greater than or equal to 0"),
            ("-1e99", "greater_than_equal", "Input should be greater than or equal to 0"),
            ("\"-5\"", "greater_than_equal", "Input should be greater than or equal to 0"),
            ("11", "less_than_equal", "Input should be less than or equal to 10"),
            ("9223372036854775808", "less_than_equal", "Input should be less than or equal to 10"),
            ("1e99999999999999999999", "less_than_equal", "Input should be less than or equal to 10"),
        ] {
            let wrong = integer(raw, &(0..=10)).expect_err(raw);
            assert_eq!((wrong.kind, &*wrong.msg), (kind, msg), "{raw}");
        }
    }
}
