//! The amount of a transaction: an exact decimal with a bounded number of digits, never a binary float.

use std::{fmt, str::FromStr};

use bigdecimal::BigDecimal;

use crate::decimal::{Decimal, DecimalError};

/// At most this many digits before the point.
pub const WHOLE_DIGITS: u64 = 12;
/// At most this many digits after the point.
pub const DECIMAL_PLACES: u64 = 6;
/// At most this many digits in all.
pub const DIGITS: u64 = WHOLE_DIGITS + DECIMAL_PLACES;

/// A positive decimal with at most 12 digits before and 6 after the point. Equality is by value: `1500` equals
/// `1500.00`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount(BigDecimal);

/// Why a text is not an [`Amount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmountError {
    NotDecimal,
    NotFinite,
    NotPositive,
    TooManyDigits,
    TooManyPlaces,
    TooManyWholeDigits,
}

impl FromStr for Amount {
    type Err = AmountError;

    /// Parses a decimal, with or without an exponent. The checks run in Pydantic's order.
    fn from_str(text: &str) -> Result<Self, AmountError> {
        let decimal: Decimal = text.parse().map_err(|error| match error {
            DecimalError::NotDecimal => AmountError::NotDecimal,
            DecimalError::NotFinite => AmountError::NotFinite,
        })?;
        if decimal.total_digits() > DIGITS {
            return Err(AmountError::TooManyDigits);
        }
        if decimal.places() > DECIMAL_PLACES {
            return Err(AmountError::TooManyPlaces);
        }
        if decimal.whole_digits() > WHOLE_DIGITS {
            return Err(AmountError::TooManyWholeDigits);
        }
        if decimal.is_negative() || decimal.is_zero() {
            return Err(AmountError::NotPositive);
        }
        // Keeps the written digits, except for an exponent and for trailing zeros beyond the stored scale.
        let scale = decimal.written_places().clamp(0, DECIMAL_PLACES as i64);
        Ok(Self(decimal.to_big_decimal().with_scale(scale)))
    }
}

impl fmt::Display for Amount {
    /// Plain decimal digits, never an exponent; a valid JSON number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_plain_string())
    }
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    #[test]
    fn parsing_keeps_the_written_value() {
        for (text, expected) in [
            ("1500", "1500"),
            ("1500.00", "1500.00"),
            ("0.000001", "0.000001"),
            ("1.5e3", "1500"),
            ("1e-6", "0.000001"),
            ("999999999999.999999", "999999999999.999999"),
            ("1.50000000", "1.500000"),
            ("00001", "1"),
            (&format!("1.{}", "0".repeat(1000)), "1.000000"),
            (&format!("{}1", "0".repeat(1000)), "1"),
        ] {
            assert_eq!(text.parse::<Amount>().map(|amount| amount.to_string()), Ok(expected.to_owned()), "{text}");
        }
        assert_eq!("1500".parse::<Amount>(), "1500.00".parse::<Amount>());
    }

    #[test]
    fn invalid_amounts_are_rejected() {
        use AmountError::*;
        for (text, error) in [
            ("", NotDecimal),
            ("abc", NotDecimal),
            ("1_000", NotDecimal),
            ("NaN", NotFinite),
            ("-Infinity", NotFinite),
            ("0", NotPositive),
            ("-1", NotPositive),
            ("0.0000000", NotPositive),
            ("0.0000001", TooManyPlaces),
            ("-1.12345678", TooManyPlaces),
            ("1e-999999999", TooManyDigits),
            ("0.1234567891234567891", TooManyDigits),
            ("1234567890123456789", TooManyDigits),
            ("-1234567890123456789", TooManyDigits),
            ("123456789012.1234567", TooManyDigits),
            ("1000000000000", TooManyWholeDigits),
            ("1000000000000.000000", TooManyWholeDigits),
            ("1e12", TooManyWholeDigits),
            ("1e17", TooManyWholeDigits),
            ("1e18", TooManyDigits),
            ("1e999999999", TooManyDigits),
        ] {
            assert_eq!(text.parse::<Amount>(), Err(error), "{text}");
        }
    }

    #[test]
    fn hostile_amounts_are_refused_or_within_their_limits() -> Result<(), hostile::Failure> {
        let corpus = include_str!("../../../tests/corpora/number.txt");
        hostile::check_text(corpus, "[0-9]{1,13}(\\.[0-9]{0,8})?(e-?[0-9]{1,2})?", |text| {
            let Ok(amount) = text.parse::<Amount>() else { return Ok(()) };
            let printed = amount.to_string();
            let (whole, places) = printed.split_once('.').unwrap_or((&printed, ""));
            prop_assert!(printed.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'), "{}", printed);
            prop_assert!((1..=12).contains(&whole.len()) && places.len() <= 6, "{}", printed);
            prop_assert!(printed.bytes().any(|byte| (b'1'..=b'9').contains(&byte)), "zero: {}", printed);
            prop_assert!(whole == "0" || !whole.starts_with('0'), "{}", printed);
            let again = printed.parse::<Amount>();
            prop_assert_eq!(again.as_ref().map(ToString::to_string), Ok(printed.clone()));
            prop_assert_eq!(again, Ok(amount));
            Ok(())
        })
    }
}
