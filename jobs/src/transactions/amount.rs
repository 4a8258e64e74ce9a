//! The amount of a transaction: an exact decimal with a bounded number of digits, never a binary float.

use std::{fmt, str::FromStr};

use bigdecimal::{BigDecimal, Zero};

/// At most this many digits before the point.
pub const WHOLE_DIGITS: u64 = 12;
/// At most this many digits after the point.
pub const DECIMAL_PLACES: i64 = 6;
/// Longer texts are refused unread: no amount in range needs them, and exponents would cost memory.
const MAX_TEXT: usize = 64;

/// A positive decimal of at most 12 digits before and 6 after the point. Equality is by value: `1500` is `1500.00`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount(BigDecimal);

/// Why a text is not an [`Amount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmountError {
    NotDecimal,
    NotFinite,
    NotPositive,
    TooManyPlaces,
    TooManyWholeDigits,
}

impl FromStr for Amount {
    type Err = AmountError;

    /// Reads a decimal, with or without an exponent.
    fn from_str(text: &str) -> Result<Self, AmountError> {
        let bare = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
        if matches!(bare.as_str(), "nan" | "inf" | "infinity") {
            return Err(AmountError::NotFinite);
        }
        let decimal_chars = text.chars().all(|c| matches!(c, '0'..='9' | '.' | '+' | '-' | 'e' | 'E'));
        if text.len() > MAX_TEXT || !decimal_chars {
            return Err(AmountError::NotDecimal);
        }
        let value = BigDecimal::from_str(text).map_err(|_| AmountError::NotDecimal)?;
        if value <= BigDecimal::zero() {
            return Err(AmountError::NotPositive);
        }
        // Digits and scale alone decide, so that `1e999999999` is refused without being written out.
        let normal = value.normalized();
        let places = normal.fractional_digit_count();
        if places > DECIMAL_PLACES {
            return Err(AmountError::TooManyPlaces);
        }
        if normal.digits().saturating_add_signed(places.saturating_neg()) > WHOLE_DIGITS {
            return Err(AmountError::TooManyWholeDigits);
        }
        // What came in is what goes out, but trailing zeros beyond the stored scale and exponents are not kept.
        let scale = value.fractional_digit_count().clamp(0, DECIMAL_PLACES);
        Ok(Self(value.with_scale(scale)))
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
    use super::*;

    #[test]
    fn keeps_the_value_that_came_in() {
        for (text, shown) in [
            ("1500", "1500"),
            ("1500.00", "1500.00"),
            ("0.000001", "0.000001"),
            ("1.5e3", "1500"),
            ("1e-6", "0.000001"),
            ("999999999999.999999", "999999999999.999999"),
            ("1.50000000", "1.500000"),
        ] {
            assert_eq!(text.parse::<Amount>().map(|amount| amount.to_string()), Ok(shown.to_owned()), "{text}");
        }
        assert_eq!("1500".parse::<Amount>(), "1500.00".parse::<Amount>());
    }

    #[test]
    fn refuses_what_is_no_amount() {
        use AmountError::*;
        for (text, error) in [
            ("", NotDecimal),
            ("abc", NotDecimal),
            ("1_000", NotDecimal),
            ("NaN", NotFinite),
            ("-Infinity", NotFinite),
            ("0", NotPositive),
            ("-1", NotPositive),
            ("0.0000001", TooManyPlaces),
            ("1e-999999999", TooManyPlaces),
            ("1000000000000", TooManyWholeDigits),
            ("1e12", TooManyWholeDigits),
            ("1e999999999", TooManyWholeDigits),
        ] {
            assert_eq!(text.parse::<Amount>(), Err(error), "{text}");
        }
    }
}
