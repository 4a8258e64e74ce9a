//! Wire types of the interest rate endpoints.

use jobs::interest_rates::{self, Asset, Rate, RateError};
use poem::http::HeaderMap;
use poem_openapi::{Object, registry::MetaSchema};
use serde::Serialize;

use crate::{
    schema::any_of,
    validation::{FieldError, Text, ValidationError, Value, number_from_json, request},
    wire::{Timestamp, openapi_type},
};

request! {
    /// One asset of a submission. Unknown fields are ignored.
    #[example({"id": "id-1", "interest_rate": 100})]
    AssetRequest for Asset {
        /// The sender's id of the asset; several assets of one submission may share it.
        id: Text<0, 255>,
        /// 0 or more, with at most 20 digits before the point and 100 after it. A text stays exact in every client.
        interest_rate: Rate,
    } => Ok(Self { id, rate: interest_rate })
}

/// The pattern of the texts of [`Rate`]s, with single underscores between their characters. It has the limits of digits for
/// texts without an exponent. With one, the limits hold for the value, which a pattern cannot state.
fn rate_pattern() -> String {
    let plain = "(0_?)*[0-9](_?[0-9]){0,19}(_?\\.((_?[0-9]){1,100}(_?0)*)?)?|\\.(_?[0-9]){1,100}(_?0)*";
    let any = "[0-9](_?[0-9])*(_?\\.(_?[0-9])*)?|\\.(_?[0-9])+";
    let zero = "0(_?0)*(_?\\.(_?0)*)?|\\.(_?0)+";
    let exponent = "_?[eE]_?([+-]_?)?[0-9](_?[0-9])*";
    format!("^\\s*((\\+_?)?({plain}|({any}){exponent})|-_?({zero})({exponent})?)\\s*$")
}

impl Value for Rate {
    type Out = Self;

    fn schema() -> MetaSchema {
        let number = MetaSchema {
            minimum: Some(0.0),
            maximum: Some(1e20),
            exclusive_maximum: Some(true),
            ..MetaSchema::new("number")
        };
        let text = MetaSchema { pattern: Some(rate_pattern()), ..MetaSchema::new("string") };
        any_of([number, text, MetaSchema::new("boolean")])
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        number_from_json(raw, parse_rate)
    }
}

fn parse_rate(text: &str) -> Result<Rate, FieldError> {
    text.parse().map_err(|error| match error {
        RateError::NotNumber => FieldError::not_a_number(),
        RateError::NotFinite => FieldError::not_finite(),
        RateError::Negative => FieldError::below(0),
        RateError::TooManyPlaces => FieldError::too_many_places(100),
        RateError::TooManyWholeDigits => FieldError::too_many_whole_digits(20),
    })
}

/// The confirmation that a submission is saved.
#[derive(Object, Serialize)]
pub(super) struct Outcome {
    message: String,
}

impl Outcome {
    /// The confirmation, with the text of the original service.
    pub(super) fn saved() -> Self {
        Self { message: "Average interest rate calculated and saved successfully".into() }
    }
}

/// A saved average.
#[derive(Object, Serialize)]
pub(super) struct InterestRate {
    /// An exact decimal with 1 to 18 digits after the point.
    #[oai(validator(pattern = "^[0-9]+\\.[0-9]{1,18}$"))]
    interest_rate: String,
    /// The time when the average was saved; on a chain, the time of its block.
    updated_at: Timestamp,
}

impl From<&interest_rates::SavedRate> for InterestRate {
    fn from(from: &interest_rates::SavedRate) -> Self {
        Self { interest_rate: from.rate.to_string(), updated_at: Timestamp(from.at) }
    }
}

/// The schema of the header `Idempotency-Key`.
pub(super) struct IdempotencyKey;

openapi_type!(
    IdempotencyKey,
    "idempotency_key",
    MetaSchema { pattern: Some("^[!-~]([ -~]{0,253}[!-~])?$".into()), ..MetaSchema::new("string") }
);

/// The value of the header `Idempotency-Key`, if the request has it.
///
/// # Errors
/// The header is repeated, or its value is not a valid key.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ValidationError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let is_printable = |text: &&str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let text = value.to_str().ok().filter(is_printable);
    let text = text.filter(|text| (1..=255).contains(&text.len()) && values.next().is_none());
    match text {
        Some(text) => Ok(Some(text.to_owned())),
        None => {
            let rule = "Idempotency-Key must be given once, with 1 to 255 printable ASCII characters";
            Err(FieldError::value_error(rule).at("header", "Idempotency-Key", None))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use hostile::proptest::{prelude::*, string::string_regex};

    use super::*;

    #[test]
    fn the_pattern_matches_rates_in_every_notation() -> Result<(), hostile::Failure> {
        let pattern = rate_pattern();
        let texts = string_regex(pattern.trim_matches(['^', '$'])).expect("a pattern");
        let unseen = RefCell::new(vec!['_', '.', 'e', 'E', '+', '-']);
        hostile::check(texts, |text| {
            unseen.borrow_mut().retain(|part| !text.contains(*part));
            let raw = serde_json::to_string(text).unwrap_or_default();
            if let Err(error) = <Rate as Value>::read(&raw) {
                // Only a value that is written with an exponent may have too many digits.
                let is_size = matches!(error.kind, "decimal_whole_digits" | "decimal_max_places");
                prop_assert!(is_size && text.contains(['e', 'E']), "{:?}: {:?}", text, error);
            }
            Ok(())
        })?;
        assert!(unseen.borrow().is_empty(), "the pattern refuses {unseen:?}");
        Ok(())
    }
}
