//! Decimal parser with bounded memory use: neither a large exponent nor a long run of zeros is written out.

use std::str::FromStr;

use bigdecimal::{BigDecimal, num_bigint::BigInt};

/// The largest exponent, as in Python's `Decimal`. A larger one is read as this one: both are far beyond every limit of
/// digits.
const LARGEST_EXPONENT: i64 = 999_999_999_999_999_999;

/// A decimal number: its significant digits and their exponent. `1500.00` is `15` and 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    /// Without leading and trailing zeros; empty for zero.
    digits: String,
    exponent: i64,
    /// The number of digits after the point in the text, trailing zeros included.
    written_places: i64,
}

/// Why a text is not a [`Decimal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecimalError {
    /// The text is not a number.
    NotDecimal,
    /// The text is `NaN` or infinite.
    NotFinite,
}

impl FromStr for Decimal {
    type Err = DecimalError;

    /// Parses an optional sign, digits with an optional point, and an optional exponent.
    fn from_str(text: &str) -> Result<Self, DecimalError> {
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        if is_not_finite(unsigned) {
            return Err(DecimalError::NotFinite);
        }
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, places) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let exponent_digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if whole.is_empty() && places.is_empty()
            || !is_number(whole)
            || !is_number(places)
            || exponent_digits.is_empty()
            || !is_number(exponent_digits)
        {
            return Err(DecimalError::NotDecimal);
        }
        let beyond = if exponent.starts_with('-') { -LARGEST_EXPONENT } else { LARGEST_EXPONENT };
        let exponent = exponent.parse().unwrap_or(beyond).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT);
        let length = |text: &str| i64::try_from(text.len()).unwrap_or(LARGEST_EXPONENT);
        let all = format!("{whole}{places}");
        let significant = all.trim_end_matches('0');
        let zeros = length(&all) - length(significant);
        let digits = significant.trim_start_matches('0').to_owned();
        let exponent = exponent - length(places);
        let written_places = exponent.saturating_neg().max(0);
        let exponent = if digits.is_empty() { 0 } else { exponent + zeros };
        Ok(Self { negative, digits, exponent, written_places })
    }
}

/// Whether the text is a name for a non-finite number in Python's `Decimal` or Rust's `f64`.
fn is_not_finite(unsigned: &str) -> bool {
    if unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    let name = unsigned.to_ascii_lowercase();
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
    matches!(name, "nan" | "snan") || matches!(&*unsigned.to_ascii_lowercase(), "inf" | "infinity")
}

impl Decimal {
    /// Whether the number is less than zero; `-0` is not.
    pub fn is_negative(&self) -> bool {
        self.negative && !self.is_zero()
    }

    /// Whether the number is zero.
    pub fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// The number of digits before the point.
    pub fn whole_digits(&self) -> u64 {
        u64::try_from(self.length().saturating_add(self.exponent)).unwrap_or(0)
    }

    /// The number of digits after the point, without trailing zeros.
    pub fn places(&self) -> u64 {
        u64::try_from(self.exponent.saturating_neg()).unwrap_or(0)
    }

    /// The total number of digits as Pydantic counts them: `0.001` has three, `1e3` has four.
    pub fn total_digits(&self) -> u64 {
        self.whole_digits().saturating_add(self.places())
    }

    /// The value as a whole number.
    ///
    /// # Errors
    /// Returns [`Fraction`] if the number has a fractional part.
    pub fn whole(&self) -> Result<Whole, Fraction> {
        if self.exponent < 0 {
            return Err(Fraction);
        }
        let beyond = if self.negative { Whole::BelowAll } else { Whole::AboveAll };
        // An `i64` has at most 19 digits.
        if self.whole_digits() > 19 {
            return Ok(beyond);
        }
        let sign = if self.is_negative() { "-" } else { "" };
        let zeros = "0".repeat(usize::try_from(self.exponent).unwrap_or(0));
        Ok(format!("{sign}0{}{zeros}", self.digits).parse().map_or(beyond, Whole::Number))
    }

    /// The same number for arithmetic. Check the number of digits first: arithmetic writes all of them out.
    pub fn to_big_decimal(&self) -> BigDecimal {
        let digits = self.digits.parse::<BigInt>().unwrap_or_default();
        BigDecimal::new(if self.negative { -digits } else { digits }, self.exponent.saturating_neg())
    }

    /// The number of digits after the point in the text, trailing zeros included.
    pub fn written_places(&self) -> i64 {
        self.written_places
    }

    fn length(&self) -> i64 {
        i64::try_from(self.digits.len()).unwrap_or(i64::MAX)
    }
}

/// A whole number of any magnitude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// It fits into an `i64`.
    Number(i64),
    /// It is less than every `i64`.
    BelowAll,
    /// It is greater than every `i64`.
    AboveAll,
}

/// The error for a number with a fractional part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction;

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Decimal {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    #[test]
    fn counts_digits_as_pydantic_does() {
        let million_zeros = "0".repeat(1_000_000);
        for (text, total, whole, places) in [
            ("0", 0, 0, 0),
            ("-0.000", 0, 0, 0),
            ("1500.00", 4, 4, 0),
            ("0.001", 3, 0, 3),
            ("1e3", 4, 4, 0),
            ("1.5e1", 2, 2, 0),
            ("1.", 1, 1, 0),
            (".5", 1, 0, 1),
            ("00012.340", 4, 2, 2),
            ("1e999999999", 1_000_000_000, 1_000_000_000, 0),
            ("1e-999999999", 999_999_999, 0, 999_999_999),
            (&format!("1.{million_zeros}"), 1, 1, 0),
            (&format!("{million_zeros}1"), 1, 1, 0),
        ] {
            let decimal = read(text);
            let counted = (decimal.total_digits(), decimal.whole_digits(), decimal.places());
            assert_eq!(counted, (total, whole, places), "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn an_exponent_of_any_length_is_read() {
        for exponent in ["1000000000000000000", "99999999999999999999", &"9".repeat(100_000)] {
            let [large, small] = [read(&format!("1e{exponent}")), read(&format!("1e-{exponent}"))];
            assert_eq!((large.whole_digits(), large.places()), (1_000_000_000_000_000_000, 0));
            assert_eq!((small.whole_digits(), small.places()), (0, 999_999_999_999_999_999));
            assert_eq!((large.whole(), small.whole()), (Ok(Whole::AboveAll), Err(Fraction)));
            for zero in [format!("0e{exponent}"), format!("-0.00e-{exponent}")] {
                assert_eq!((read(&zero).is_zero(), read(&zero).whole()), (true, Ok(Whole::Number(0))));
            }
        }
        assert_eq!(read(&format!("1e{}5", "0".repeat(100))), read("1e5"));
    }

    #[test]
    fn keeps_value_and_written_places() {
        for (text, value, places) in
            [("1500.00", "1500", 2), ("-1.50", "-1.5", 2), ("1e2", "100", 0), ("15e-1", "1.5", 1)]
        {
            let decimal = read(text);
            assert_eq!(
                (decimal.to_big_decimal(), decimal.written_places()),
                (value.parse().expect("a number"), places)
            );
        }
    }

    #[test]
    fn refuses_texts_that_are_not_decimals() {
        for text in [
            "",
            "+",
            ".",
            "e5",
            "1e",
            "1e+",
            "++1",
            "1,5",
            "1 2",
            "0x10",
            "1_000",
            "1.2.3",
            "١",
            "1e99999999999999999999x",
        ] {
            assert_eq!(text.parse::<Decimal>(), Err(DecimalError::NotDecimal), "{text}");
        }
        for text in ["NaN", "nan12", "sNaN", "inf", "-Infinity", "+INF"] {
            assert_eq!(text.parse::<Decimal>(), Err(DecimalError::NotFinite), "{text}");
        }
        assert_eq!("inf1".parse::<Decimal>(), Err(DecimalError::NotDecimal));
    }

    #[test]
    fn whole_numbers_may_exceed_i64() {
        for (text, whole) in [
            ("5.0", Ok(Whole::Number(5))),
            ("-0", Ok(Whole::Number(0))),
            ("-9223372036854775808", Ok(Whole::Number(i64::MIN))),
            ("9223372036854775808", Ok(Whole::AboveAll)),
            ("-1e99", Ok(Whole::BelowAll)),
            ("0e99", Ok(Whole::Number(0))),
            ("5.5", Err(Fraction)),
            ("1e-999999999", Err(Fraction)),
        ] {
            assert_eq!(read(text).whole(), whole, "{text}");
        }
    }

    /// The value by another parser, for texts whose digits can be written out. It also accepts underscores.
    fn other_parser(text: &str) -> Option<BigDecimal> {
        let (_, exponent) = text.split_once(['e', 'E']).unwrap_or(("", "0"));
        let exponent: i64 = exponent.parse().ok()?;
        (exponent.abs() < 1000 && !text.contains('_')).then(|| text.parse().ok())?
    }

    #[test]
    fn hostile_numbers_are_refused_or_exact() -> Result<(), hostile::Failure> {
        let corpus = include_str!("../../tests/corpora/number.txt");
        hostile::check_text(corpus, "[+-]?[0-9]{0,30}(\\.[0-9]{0,30})?([eE][+-]?[0-9]{1,4})?", |text| {
            let Ok(decimal) = text.parse::<Decimal>() else {
                prop_assert_eq!(other_parser(text), None, "refused");
                return Ok(());
            };
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)), "accepted");
            let Some(value) = other_parser(text) else { return Ok(()) };
            let parsed = decimal.to_big_decimal();
            prop_assert_eq!(&parsed, &value);
            prop_assert_eq!(decimal.is_negative(), value < 0);
            prop_assert_eq!(decimal.is_zero(), value == 0);
            let plain = value.normalized().to_plain_string();
            let (whole, places) =
                plain.trim_start_matches('-').split_once('.').unwrap_or((plain.trim_start_matches('-'), ""));
            let digits = |text: &str| u64::try_from(text.len()).unwrap_or(u64::MAX);
            prop_assert_eq!(decimal.whole_digits(), digits(whole.trim_start_matches('0')));
            prop_assert_eq!(decimal.places(), digits(places));
            let number = plain.parse::<i64>().map(Whole::Number);
            let beyond = if decimal.is_negative() { Whole::BelowAll } else { Whole::AboveAll };
            let whole = if places.is_empty() { Ok(number.unwrap_or(beyond)) } else { Err(Fraction) };
            prop_assert_eq!(decimal.whole(), whole);
            prop_assert_eq!(plain.parse::<Decimal>().map(|again| again.to_big_decimal()), Ok(value), "printed");
            Ok(())
        })
    }
}
