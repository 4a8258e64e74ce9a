//! Interest rates as the wire shows them, and assets as they are read from it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jobs::rates::{self, Asset, Rate, RateError, Submission};
use poem::http::HeaderMap;
use poem_openapi::{Object, registry::MetaSchema, types::Example};
use serde::Serialize;

use crate::{
    problem::Problem,
    validation::{Fields, FromBody, Limit, List, QueryValue, Wrong},
    wire::{Decimal, Timestamp},
};

/// One asset of a submission. Unknown fields are ignored.
#[derive(Object)]
#[oai(example)]
pub struct AssetRequest {
    /// The sender's name for it; several assets of one submission may share it.
    #[oai(validator(max_length = 255))]
    id: String,
    /// 0 or more, with at most 20 digits before the point and 100 after it; may also be a string.
    interest_rate: Decimal,
}

impl Example for AssetRequest {
    fn example() -> Self {
        Self { id: "id-1".into(), interest_rate: 100.into() }
    }
}

/// What one element of a body says.
#[derive(Debug)]
pub struct Said(Asset);

impl FromBody for Said {
    type Schema = AssetRequest;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (id, rate) = (fields.text("id", 0..=255), fields.number("interest_rate", rate));
        Some(Self(Asset { id: id?, rate: rate? }))
    }
}

fn rate(text: &str) -> Result<Rate, Wrong> {
    text.parse().map_err(|error| match error {
        RateError::NotNumber => Wrong::not_a_number(),
        RateError::NotFinite => Wrong::not_finite(),
        RateError::Negative => Wrong::below(0),
        RateError::TooManyPlaces => {
            Wrong::new("decimal_max_places", "Decimal input should have no more than 100 decimal places")
                .limit("decimal_places", 100)
        }
        RateError::TooManyWholeDigits => Wrong::new(
            "decimal_whole_digits",
            "Decimal input should have no more than 20 digits before the decimal point",
        )
        .limit("whole_digits", 20),
    })
}

/// All assets of a body, under this key.
pub fn submission(List(said): List<Said>, idempotency_key: Option<String>) -> Submission {
    Submission { assets: said.into_iter().map(|Said(asset)| asset).collect(), idempotency_key }
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

/// Where a page begins, as a query parameter. Opaque to clients: its form may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub rates::Cursor);

impl QueryValue for Cursor {
    fn schema() -> MetaSchema {
        MetaSchema::new("string")
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        let cursor = bytes.map(|bytes| Self(rates::Cursor(u128::from_be_bytes(bytes))));
        cursor.ok_or_else(|| Wrong::rule("cursor must be one that a Link header gave"))
    }
}

/// The `Link` to the page that goes on after `last`.
pub fn next_link(limit: Limit, last: rates::Cursor) -> String {
    let cursor = URL_SAFE_NO_PAD.encode(last.0.to_be_bytes());
    format!("</interest_rate/history?limit={}&cursor={cursor}>; rel=\"next\"", limit.0)
}

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
            let wrong = Wrong::rule("Idempotency-Key must be given once, with 1 to 255 printable ASCII characters");
            Err(Problem::invalid(vec![wrong.at("header", "Idempotency-Key", None)]))
        }
    }
}
