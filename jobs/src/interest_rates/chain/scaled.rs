//! Rates as the contract keeps them: whole numbers of 10^-18, exactly.

use std::{fmt, str::FromStr as _};

use bigdecimal::{BigDecimal, num_bigint::BigInt};

/// The decimal places of a rate on the contract.
pub const PLACES: i64 = 18;
/// The largest number of units: a rate of 10^20.
const MOST: u128 = 10_u128.pow(38);

/// A rate as a whole number of units of 10^-18, from 0 to 10^38.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scaled(u128);

/// Why a decimal is no such rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScaledError {
    #[error("a rate must not be negative")]
    Negative,
    #[error("a rate has at most 18 decimal places")]
    TooPrecise,
    #[error("a rate is at most 10^20")]
    TooLarge,
}

impl Scaled {
    /// The largest rate.
    pub const MOST: Self = Self(MOST);

    /// A rate of this many units.
    ///
    /// # Errors
    /// Above 10^38.
    pub fn from_units(units: u128) -> Result<Self, ScaledError> {
        if units <= MOST { Ok(Self(units)) } else { Err(ScaledError::TooLarge) }
    }

    /// How many units of 10^-18 it is.
    pub fn units(self) -> u128 {
        self.0
    }

    /// The rate itself.
    pub fn to_decimal(self) -> BigDecimal {
        BigDecimal::new(BigInt::from(self.0), PLACES).normalized()
    }
}

impl TryFrom<&BigDecimal> for Scaled {
    type Error = ScaledError;

    /// Never rounds.
    fn try_from(rate: &BigDecimal) -> Result<Self, ScaledError> {
        // What is written with a large exponent is judged by it, and never written out.
        let (digits, scale) = rate.normalized().into_bigint_and_exponent();
        if digits < BigInt::ZERO {
            return Err(ScaledError::Negative);
        }
        let zeros = PLACES.checked_sub(scale).ok_or(ScaledError::TooPrecise)?;
        if zeros < 0 {
            return Err(ScaledError::TooPrecise);
        }
        let digits = u128::from_str(&digits.to_string()).map_err(|_| ScaledError::TooLarge)?;
        let factor = u32::try_from(zeros).ok().and_then(|zeros| 10_u128.checked_pow(zeros));
        if digits == 0 {
            return Ok(Self(0));
        }
        let units = factor.and_then(|factor| digits.checked_mul(factor)).ok_or(ScaledError::TooLarge)?;
        Self::from_units(units)
    }
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_decimal().to_plain_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(text: &str) -> Result<u128, ScaledError> {
        Scaled::try_from(&BigDecimal::from_str(text).expect("a decimal")).map(Scaled::units)
    }

    #[test]
    fn decimals_become_units_and_come_back() {
        for (text, units) in [
            ("0", 0),
            ("0.000", 0),
            ("1", 10_u128.pow(18)),
            ("55.0", 55 * 10_u128.pow(18)),
            ("0.000000000000000001", 1),
            ("1.50000000000000000000000000", 15 * 10_u128.pow(17)),
            ("33.333333333333333333", 33_333_333_333_333_333_333),
            ("1e20", MOST),
            ("100000000000000000000", MOST),
        ] {
            assert_eq!(scaled(text), Ok(units), "{text}");
            let back = Scaled(units).to_decimal();
            assert_eq!(back, BigDecimal::from_str(text).expect("a decimal"), "{text}");
        }
        assert_eq!(Scaled(15 * 10_u128.pow(17)).to_string(), "1.5");
        assert_eq!(Scaled(MOST).to_string(), "100000000000000000000");
    }

    #[test]
    fn nothing_is_rounded_or_wrapped() {
        assert_eq!(scaled("-0.1"), Err(ScaledError::Negative));
        assert_eq!(scaled("0.0000000000000000001"), Err(ScaledError::TooPrecise));
        assert_eq!(scaled("1e-9000000000"), Err(ScaledError::TooPrecise));
        assert_eq!(scaled("100000000000000000000.000000000000000001"), Err(ScaledError::TooLarge));
        assert_eq!(scaled("1e21"), Err(ScaledError::TooLarge));
        assert_eq!(scaled("1e9000000000"), Err(ScaledError::TooLarge));
        assert_eq!(scaled("340282366920938463463374607431768211456"), Err(ScaledError::TooLarge));
        assert_eq!(Scaled::from_units(MOST + 1), Err(ScaledError::TooLarge));
    }
}
