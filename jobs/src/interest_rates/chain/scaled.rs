//! Scaled rate: the contract's exact fixed-point format, a whole number of units of 10^-18.

use std::{fmt, str::FromStr as _};

use bigdecimal::{BigDecimal, num_bigint::BigInt};

/// The decimal places of a rate on the contract.
pub(super) const PLACES: i64 = 18;
/// The largest number of units: a rate of 10^20.
const MAX_UNITS: u128 = 10_u128.pow(38);

/// A rate as a whole number of units of 10^-18, from 0 to 10^38.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScaledRate(u128);

/// Why a decimal is not a [`ScaledRate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScaledRateError {
    #[error("a rate must not be negative")]
    Negative,
    #[error("a rate has at most 18 decimal places")]
    TooPrecise,
    #[error("a rate is at most 10^20")]
    TooLarge,
}

impl ScaledRate {
    /// The largest rate.
    pub const MAX: Self = Self(MAX_UNITS);

    /// A rate of this many units.
    ///
    /// # Errors
    /// Returns [`ScaledRateError::TooLarge`] above 10^38 units.
    pub fn from_units(units: u128) -> Result<Self, ScaledRateError> {
        if units <= MAX_UNITS { Ok(Self(units)) } else { Err(ScaledRateError::TooLarge) }
    }

    /// The number of units of 10^-18.
    pub fn units(self) -> u128 {
        self.0
    }

    /// The rate as a decimal.
    pub fn to_decimal(self) -> BigDecimal {
        BigDecimal::new(BigInt::from(self.0), PLACES).normalized()
    }
}

impl TryFrom<&BigDecimal> for ScaledRate {
    type Error = ScaledRateError;

    /// Converts exactly, without rounding.
    fn try_from(rate: &BigDecimal) -> Result<Self, ScaledRateError> {
        // A number with a large exponent is refused by its exponent, without writing it out.
        let (digits, scale) = rate.normalized().into_bigint_and_exponent();
        if digits < BigInt::ZERO {
            return Err(ScaledRateError::Negative);
        }
        let zeros = PLACES.checked_sub(scale).ok_or(ScaledRateError::TooPrecise)?;
        if zeros < 0 {
            return Err(ScaledRateError::TooPrecise);
        }
        let digits = u128::from_str(&digits.to_string()).map_err(|_| ScaledRateError::TooLarge)?;
        let factor = u32::try_from(zeros).ok().and_then(|zeros| 10_u128.checked_pow(zeros));
        if digits == 0 {
            return Ok(Self(0));
        }
        let units = factor.and_then(|factor| digits.checked_mul(factor)).ok_or(ScaledRateError::TooLarge)?;
        Self::from_units(units)
    }
}

impl fmt::Display for ScaledRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_decimal().to_plain_string())
    }
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    fn scaled(text: &str) -> Result<u128, ScaledRateError> {
        ScaledRate::try_from(&BigDecimal::from_str(text).expect("a decimal")).map(ScaledRate::units)
    }

    #[test]
    fn decimals_convert_to_units_and_back() {
        for (text, units) in [
            ("0", 0),
            ("0.000", 0),
            ("1", 10_u128.pow(18)),
            ("55.0", 55 * 10_u128.pow(18)),
            ("0.000000000000000001", 1),
            ("1.50000000000000000000000000", 15 * 10_u128.pow(17)),
            ("33.333333333333333333", 33_333_333_333_333_333_333),
            ("1e20", MAX_UNITS),
            ("100000000000000000000", MAX_UNITS),
        ] {
            assert_eq!(scaled(text), Ok(units), "{text}");
            let back = ScaledRate(units).to_decimal();
            assert_eq!(back, BigDecimal::from_str(text).expect("a decimal"), "{text}");
        }
        assert_eq!(ScaledRate(15 * 10_u128.pow(17)).to_string(), "1.5");
        assert_eq!(ScaledRate(MAX_UNITS).to_string(), "100000000000000000000");
    }

    #[test]
    fn inexact_and_large_values_are_refused() {
        assert_eq!(scaled("-0.1"), Err(ScaledRateError::Negative));
        assert_eq!(scaled("0.0000000000000000001"), Err(ScaledRateError::TooPrecise));
        assert_eq!(scaled("1e-9000000000"), Err(ScaledRateError::TooPrecise));
        assert_eq!(scaled("100000000000000000000.000000000000000001"), Err(ScaledRateError::TooLarge));
        assert_eq!(scaled("1e21"), Err(ScaledRateError::TooLarge));
        assert_eq!(scaled("1e9000000000"), Err(ScaledRateError::TooLarge));
        assert_eq!(scaled("340282366920938463463374607431768211456"), Err(ScaledRateError::TooLarge));
        assert_eq!(ScaledRate::from_units(MAX_UNITS + 1), Err(ScaledRateError::TooLarge));
    }

    #[test]
    fn hostile_decimals_scale_exactly_or_are_refused() -> Result<(), hostile::Failure> {
        let scales = prop_oneof![3 => -25..40_i64, 1 => any::<i64>()];
        hostile::check((any::<i128>(), 0..100_u32, scales), |(digits, shift, scale)| {
            let digits = digits >> shift;
            let scaled = ScaledRate::try_from(&BigDecimal::new(digits.into(), *scale));
            // The number of units, if the digits can be written out.
            let exponent = 18 - i128::from(*scale);
            let ten_to = |power: i128| BigInt::from(10).pow(u32::try_from(power).unwrap_or(0));
            let exact = match exponent {
                0..100 => Some(BigInt::from(digits) * ten_to(exponent)),
                -100..0 if BigInt::from(digits) % ten_to(-exponent) == BigInt::ZERO => {
                    Some(BigInt::from(digits) / ten_to(-exponent))
                }
                -100..0 => None,
                _ => {
                    prop_assert!(scaled.is_err() || digits == 0, "{:?}", scaled);
                    return Ok(());
                }
            };
            let expected = exact.filter(|units| *units >= BigInt::ZERO && *units <= BigInt::from(MAX_UNITS));
            prop_assert_eq!(scaled.ok().map(|rate| BigInt::from(rate.units())), expected);
            if let Ok(rate) = scaled {
                prop_assert_eq!(ScaledRate::try_from(&rate.to_decimal()), Ok(rate));
            }
            Ok(())
        })
    }
}
