//! What crosses the wire in a notation of its own: JSON answers, exact decimals and times.

use std::marker::PhantomData;

use poem::{IntoResponse, Response, http::header};
use poem_openapi::{
    payload::Payload,
    registry::{MetaSchema, MetaSchemaRef, Registry},
    types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use time::{OffsetDateTime, UtcOffset};

use crate::problem::Problem;

/// A JSON answer that shows a `T`. Written once, straight from the struct: the framework's own would build a tree of
/// values first, in which a decimal would become a float.
pub struct Json<T> {
    text: Vec<u8>,
    shows: PhantomData<fn() -> T>,
}

impl<T: Serialize> Json<T> {
    /// Writes it.
    ///
    /// # Errors
    /// 500, when a type cannot be written as JSON at all.
    pub fn new(value: &T) -> Result<Self, Problem> {
        let mut text = serde_json::to_vec(value).map_err(|error| Problem::internal(error.to_string()))?;
        // So that the prompt of a shell does not run into the answer.
        text.push(b'\n');
        Ok(Self { text, shows: PhantomData })
    }

    /// What will be sent.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

impl<T: Type> Payload for Json<T> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let content_type = header::HeaderValue::from_static("application/json");
        let mut response = Response::from(self.text);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// A decimal as a JSON number, digit for digit.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Decimal(Box<RawValue>);

impl Decimal {
    /// Takes the text of a JSON number over.
    ///
    /// # Errors
    /// 500, when it is not JSON.
    pub fn new(text: String) -> Result<Self, Problem> {
        RawValue::from_string(text).map(Self).map_err(|error| Problem::internal(error.to_string()))
    }
}

/// A time, in UTC and to the microsecond, as RFC 3339 writes it: `2024-01-15T10:30:00.000000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp(pub OffsetDateTime);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let utc = self.0.to_offset(UtcOffset::UTC);
        let (year, month, day) = utc.to_calendar_date();
        let (hour, minute, second, micro) = utc.to_hms_micro();
        write!(f, "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z", u8::from(month))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is always in an answer, be it null. A plain `Option` would be documented as one that may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Nullable<T>(pub Option<T>);

impl<T: Type + Serialize> Type for Nullable<T> {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> std::borrow::Cow<'static, str> {
        format!("nullable_{}", T::name()).into()
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref().merge(MetaSchema { nullable: true, ..MetaSchema::ANY })
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl<T: Type + Serialize> ToJSON for Nullable<T> {
    fn to_json(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self).ok()
    }
}

impl<T: Type + Serialize> ParseFromJSON for Nullable<T> {
    fn parse_from_json(_: Option<serde_json::Value>) -> ParseResult<Self> {
        Err(ParseError::custom("only answered, never read"))
    }
}

/// Makes a type known to `openapi.json` by this schema.
macro_rules! documented {
    ($type:ty, $name:literal, $schema:expr) => {
        impl ::poem_openapi::types::Type for $type {
            const IS_REQUIRED: bool = true;
            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> ::std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn schema_ref() -> ::poem_openapi::registry::MetaSchemaRef {
                ::poem_openapi::registry::MetaSchemaRef::Inline(Box::new($schema))
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::once(self))
            }
        }
    };
}

/// Makes a type that is only answered known to `openapi.json`. The framework wants it to be readable too, but bodies are read
/// by [`crate::validation`] alone.
macro_rules! answer_only {
    ($type:ty, $name:literal, $schema:expr) => {
        $crate::wire::documented!($type, $name, $schema);

        impl ::poem_openapi::types::ToJSON for $type {
            fn to_json(&self) -> Option<::serde_json::Value> {
                ::serde_json::to_value(self).ok()
            }
        }

        impl ::poem_openapi::types::ParseFromJSON for $type {
            fn parse_from_json(_: Option<::serde_json::Value>) -> ::poem_openapi::types::ParseResult<Self> {
                Err(::poem_openapi::types::ParseError::custom("only answered, never read"))
            }
        }
    };
}

pub(crate) use answer_only;
pub(crate) use documented;

answer_only!(
    Decimal,
    "decimal",
    MetaSchema { format: Some("decimal"), example: Some(1500.into()), ..MetaSchema::new("number") }
);
answer_only!(
    Timestamp,
    "timestamp",
    MetaSchema {
        example: Some("2024-01-15T10:30:00.000000Z".into()),
        ..MetaSchema::new_with_format("string", "date-time")
    }
);

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_are_utc_to_the_microsecond() {
        for (time, shown) in [
            (datetime!(2024-01-15 10:30 UTC), "2024-01-15T10:30:00.000000Z"),
            (datetime!(2024-01-15 00:30:00.000001 +5:30), "2024-01-14T19:00:00.000001Z"),
        ] {
            assert_eq!(serde_json::to_string(&Timestamp(time)).ok(), Some(format!("\"{shown}\"")));
        }
    }

    #[test]
    fn decimals_keep_their_digits() {
        for text in ["1500", "1500.00", "999999999999.999999"] {
            let json = Decimal::new(text.into()).and_then(|decimal| Json::new(&decimal));
            assert_eq!(json.ok().map(|json| json.text), Some(format!("{text}\n").into_bytes()));
        }
        assert!(Decimal::new("1,5".into()).is_err());
    }
}
