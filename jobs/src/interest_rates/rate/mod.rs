//! Interest rate: an exact decimal in requests, in storage and in responses, never a binary float.

use std::{cmp::Ordering, fmt, str::FromStr};

use bigdecimal::{BigDecimal, Zero, num_bigint::BigInt};

use crate::decimal::{Decimal, DecimalError};

/// The limit of digits before the point in a request.
pub const WHOLE_DIGITS: u64 = 20;
/// The limit of digits after the point in a request.
pub const DECIMAL_PLACES: u64 = 100;
/// The digits after the point of an average, in both storages. The contract stores an integer in units of 10^-18.
pub const SCALE: i64 = 18;

/// A non-negative rate. Equality is by value: `55` equals `55.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate(BigDecimal);

/// Why a text is not a [`Rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateError {
    NotNumber,
    NotFinite,
    Negative,
    TooManyPlaces,
    TooManyWholeDigits,
}

impl Rate {
    /// The arithmetic mean: computed exactly, then rounded once, half to even, to [`SCALE`] digits after the point.
    /// `None` without any rates.
    pub fn average<'a>(rates: impl ExactSizeIterator<Item = &'a Self>) -> Option<Self> {
        let count = BigInt::from(rates.len());
        if count.is_zero() {
            return None;
        }
        let (digits, places) = rates.map(|rate| &rate.0).sum::<BigDecimal>().into_bigint_and_exponent();
        // digits · 10^-places / count, in units of 10^-SCALE.
        let (mut numerator, mut denominator) = (digits, count);
        let shift = ten_to(places.abs_diff(SCALE));
        if places < SCALE {
            numerator *= shift
        } else {
            denominator *= shift
        }
        let (whole, rest) = (&numerator / &denominator, &numerator % &denominator);
        let odd = &whole % 2u8 != BigInt::zero();
        let up = match (rest * 2u8).cmp(&denominator) {
            Ordering::Less => false,
            Ordering::Equal => odd,
            Ordering::Greater => true,
        };
        Some(Self(BigDecimal::new(whole + u8::from(up), SCALE)))
    }

    /// A rate from its stored value.
    pub(super) fn from_stored(value: BigDecimal) -> Self {
        Self(value)
    }

    /// The value to store.
    pub(super) fn as_decimal(&self) -> &BigDecimal {
        &self.0
    }

    /// The digits without insignificant zeros and without an exponent. Equal rates have equal digits.
    pub fn digits(&self) -> String {
        self.0.normalized().to_plain_string()
    }
}

fn ten_to(exponent: u64) -> BigInt {
    BigInt::from(10u8).pow(u32::try_from(exponent).unwrap_or(u32::MAX))
}

impl FromStr for Rate {
    type Err = RateError;

    /// Parses a decimal with an optional exponent.
    fn from_str(text: &str) -> Result<Self, RateError> {
        let decimal: Decimal = text.parse().map_err(|error| match error {
            DecimalError::NotDecimal => RateError::NotNumber,
            DecimalError::NotFinite => RateError::NotFinite,
        })?;
        if decimal.is_negative() {
            return Err(RateError::Negative);
        }
        if decimal.places() > DECIMAL_PLACES {
            return Err(RateError::TooManyPlaces);
        }
        if decimal.whole_digits() > WHOLE_DIGITS {
            return Err(RateError::TooManyWholeDigits);
        }
        Ok(Self(decimal.to_big_decimal()))
    }
}

impl fmt::Display for Rate {
    /// The format of responses: plain digits without trailing zeros. A whole number keeps one, as in `55.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.digits();
        f.write_str(&digits)?;
        if digits.contains('.') { Ok(()) } else { f.write_str(".0") }
    }
}

#[cfg(test)]
mod tests;
