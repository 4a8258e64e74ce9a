//! Decimals, from JSON numbers or strings, never through a float.

use std::borrow::Cow;

use jobs::transactions::{Amount, AmountError};

use super::{Fields, fields::string};
use crate::validation::Wrong;

impl Fields<'_> {
    /// A positive decimal, from a JSON number or string, never through a float.
    pub fn amount(&mut self, name: &'static str) -> Option<Amount> {
        self.field(name, amount)
    }

    /// A number in the words that Pydantic has for a float, and as lax, but exact: `read` gets its text without outer
    /// blanks, `1` for true and `0` for false.
    pub fn number<T>(&mut self, name: &'static str, read: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        self.field(name, |raw| number(raw, read))
    }
}

pub(super) fn amount(raw: &str) -> Result<Amount, Wrong> {
    let text = text_of_number(raw)?.ok_or_else(|| {
        Wrong::new("decimal_type", "Decimal input should be an integer, float, string or Decimal object")
    })?;
    text.trim().parse().map_err(|error| match error {
        AmountError::NotDecimal => Wrong::new("decimal_parsing", "Input should be a valid decimal"),
        AmountError::NotFinite => Wrong::not_finite(),
        AmountError::NotPositive => Wrong::new("greater_than", "Input should be greater than 0").limit("gt", 0),
        AmountError::TooManyPlaces => {
            Wrong::new("decimal_max_places", "Decimal input should have no more than 6 decimal places")
                .limit("decimal_places", 6)
        }
        AmountError::TooManyWholeDigits => Wrong::new(
            "decimal_whole_digits",
            "Decimal input should have no more than 12 digits before the decimal point",
        )
        .limit("whole_digits", 12),
    })
}

/// Reads the raw JSON of a number.
pub(super) fn number<T>(raw: &str, read: impl FnOnce(&str) -> Result<T, Wrong>) -> Result<T, Wrong> {
    match raw {
        "true" => read("1"),
        "false" => read("0"),
        _ => match text_of_number(raw)? {
            Some(text) => read(text.trim()),
            None => Err(Wrong::new("float_type", "Input should be a valid number")),
        },
    }
}

/// The text of a JSON number or string, and `None` when it is neither.
fn text_of_number(raw: &str) -> Result<Option<Cow<'_, str>>, Wrong> {
    match string(raw) {
        Some(text) => text.map(Some),
        None => Ok(raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()).then_some(Cow::Borrowed(raw))),
    }
}
