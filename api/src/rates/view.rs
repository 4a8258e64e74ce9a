//! Interest rates as the wire shows them, and assets as they are read from it.

use jobs::rates::{self, Asset, Rate, RateError, Submission};
use poem::http::HeaderMap;
use poem_openapi::{Object, registry::MetaSchema};
use serde::Serialize;

use crate::{
    problem::Problem,
    validation::{Cursor, FieldError, Limit, List, Text, Value, any_of, number_in_json, request},
    wire::{Timestamp, documented},
};

request! {
    /// One asset of a submission. Unknown fields are ignored.
    #[example({"id": "id-1", "interest_rate": 100})]
    pub struct AssetRequest {
        /// The sender's name for it; several assets of one submission may share it.
        id: Text<0, 255>,
        /// 0 or more, with at most 20 digits before the point and 100 after it. As a text it stays exact in every client.
        interest_rate: Rate,
    }
}

/// The texts of [`Rate`]s, without an exponent.
const RATE_PATTERN: &str = "^\\s*\\+?0*[0-9]{1,20}(\\.[0-9]{1,100})?\\s*$";

impl Value for Rate {
    fn schema() -> MetaSchema {
        let number = MetaSchema {
            minimum: Some(0.0),
            maximum: Some(1e20),
            exclusive_maximum: Some(true),
            ..MetaSchema::new("number")
        };
        let text = MetaSchema { pattern: Some(RATE_PATTERN.into()), ..MetaSchema::new("string") };
        any_of([number, text, MetaSchema::new("boolean")])
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        number_in_json(raw, rate)
    }
}

fn rate(text: &str) -> Result<Rate, FieldError> {
    text.parse().map_err(|error| match error {
        RateError::NotNumber => FieldError::not_a_number(),
        RateError::NotFinite => FieldError::not_finite(),
        RateError::Negative => FieldError::below(0),
        RateError::TooManyPlaces => {
            FieldError::new("decimal_max_places", "Decimal input should have no more than 100 decimal places")
                .limit("decimal_places", 100)
        }
        RateError::TooManyWholeDigits => FieldError::new(
            "decimal_whole_digits",
            "Decimal input should have no more than 20 digits before the decimal point",
        )
        .limit("whole_digits", 20),
    })
}

/// All assets of a body, under this key.
pub fn submission(List(assets): List<AssetRequest>, idempotency_key: Option<String>) -> Submission {
    let assets = assets.into_iter().map(|AssetRequest { id, interest_rate }| Asset { id: id.0, rate: interest_rate });
    Submission { assets: assets.collect(), idempotency_key }
}

/// That a submission is saved.
#[derive(Object, Serialize)]
pub struct Outcome {
    message: String,
}

impl Outcome {
    /// The seed's text.
    pub fn saved() -> Self {
        Self { message: "Average interest rate calculated and saved successfully".into() }
    }
}

/// A saved average.
#[derive(Object, Serialize)]
#[oai(rename = "InterestRate")]
pub struct Reading {
    /// Decimal digits, exact, at most 18 after the point and at least one.
    #[oai(validator(pattern = "^[0-9]+\\.[0-9]{1,18}$"))]
    interest_rate: String,
    /// When it was saved; on a chain, the time of its block.
    updated_at: Timestamp,
}

impl From<&rates::Reading> for Reading {
    fn from(from: &rates::Reading) -> Self {
        Self { interest_rate: from.rate.to_string(), updated_at: Timestamp(from.at) }
    }
}

/// The `Link` to the page that goes on after `last`.
pub fn next_link(limit: Limit, last: rates::Cursor) -> String {
    let cursor = Cursor(last.0.to_be_bytes());
    format!("</interest_rate/history?limit={}&cursor={cursor}>; rel=\"next\"", limit.0)
}

/// A name for a submission, as the header `Idempotency-Key` has it.
pub struct IdempotencyKey;

documented!(
    IdempotencyKey,
    "idempotency_key",
    MetaSchema { pattern: Some("^[!-~]([ -~]{0,253}[!-~])?$".into()), ..MetaSchema::new("string") }
);

/// What `Idempotency-Key` says.
///
/// # Errors
/// 422 when it cannot be a key.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(value) = given.next() else { return Ok(None) };
    let visible = |text: &&str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let text = value.to_str().ok().filter(visible);
    let text = text.filter(|text| (1..=255).contains(&text.len()) && given.next().is_none());
    match text {
        Some(text) => Ok(Some(text.to_owned())),
        None => {
            let wrong =
                FieldError::rule("Idempotency-Key must be given once, with 1 to 255 printable ASCII characters");
            Err(Problem::invalid(vec![wrong.at("header", "Idempotency-Key", None)]))
        }
    }
}
