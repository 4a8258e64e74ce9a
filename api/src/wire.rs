//! Wire types: JSON responses, exact decimals and timestamps.

use std::marker::PhantomData;

use poem::{Body, IntoResponse, Response, http::header};
use poem_openapi::{
    payload::Payload,
    registry::{MetaSchema, MetaSchemaRef, Registry},
    types::Type,
};
use serde::{Serialize, Serializer, ser::Error};
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

use crate::problem::Problem;

/// A JSON response with a `T`, serialised straight from the struct. The framework's own type builds a tree of values
/// first, in which decimals become floats.
pub struct Json<T> {
    body: Body,
    serialized: PhantomData<fn() -> T>,
}

impl<T> Json<T> {
    /// A response with the JSON of a `T`.
    pub fn from_body(body: impl Into<Body>) -> Self {
        Self { body: body.into(), serialized: PhantomData }
    }
}

impl<T: Serialize> Json<T> {
    /// Serialises `value` as [`encode`] does.
    ///
    /// # Errors
    /// 500 if the type cannot be serialised as JSON.
    pub fn new(value: &T) -> Result<Self, Problem> {
        encode(value).map(Self::from_body)
    }
}

/// The JSON of a value, followed by a newline, which keeps a shell's prompt off the response's last line.
///
/// # Errors
/// 500 if the type cannot be serialised as JSON.
pub fn encode(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(text)
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
        let mut response = Response::from(self.body);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// The schema of a decimal: a JSON number, digit for digit. `jobs::transactions::json` writes it.
#[derive(Serialize)]
pub struct Decimal;

/// A time in UTC with microseconds, written as in RFC 3339: `2024-01-15T10:30:00.000000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp(pub OffsetDateTime);

/// The form of a [`Timestamp`] in UTC.
const TIMESTAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.to_offset(UtcOffset::UTC).format(TIMESTAMP).map_err(S::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

/// A response field that is always present and may be null. `openapi.json` would describe a plain `Option` as a field
/// that may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Nullable<T>(pub Option<T>);

/// Declares the schema of a type in `openapi.json`; `refers to` names a type whose schema it contains.
macro_rules! openapi_type {
    ($type:ty, $name:literal, $schema:expr) => {
        $crate::wire::openapi_type!({} $type, $name, $crate::schema::inline($schema));
    };
    ({ $($generics:tt)* } $type:ty, $name:expr, $schema_ref:expr $(, refers to $part:ty)?) => {
        impl $($generics)* ::poem_openapi::types::Type for $type {
            const IS_REQUIRED: bool = true;
            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> ::std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn schema_ref() -> ::poem_openapi::registry::MetaSchemaRef {
                $schema_ref
            }

            $(fn register(registry: &mut ::poem_openapi::registry::Registry) {
                <$part as ::poem_openapi::types::Type>::register(registry);
            })?

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::once(self))
            }
        }
    };
}

/// Declares the schema of a type that only responses contain. The framework requires a parser too; it always fails,
/// since bodies are read by [`crate::validation`] alone.
macro_rules! openapi_response_type {
    ($type:ty, $name:literal, $schema:expr) => {
        $crate::wire::openapi_response_type!({} $type, $name, $crate::schema::inline($schema));
    };
    ({ $($generics:tt)* } $type:ty, $name:expr, $schema_ref:expr $(, refers to $part:ty)?) => {
        $crate::wire::openapi_type!({ $($generics)* } $type, $name, $schema_ref $(, refers to $part)?);

        impl $($generics)* ::poem_openapi::types::ToJSON for $type {
            fn to_json(&self) -> Option<::serde_json::Value> {
                ::serde_json::to_value(self).ok()
            }
        }

        impl $($generics)* ::poem_openapi::types::ParseFromJSON for $type {
            fn parse_from_json(_: Option<::serde_json::Value>) -> ::poem_openapi::types::ParseResult<Self> {
                Err(::poem_openapi::types::ParseError::custom("only in responses, never read"))
            }
        }
    };
}

/// Declares responses with a body and perhaps headers: `ListResponse = 200 Json<Vec<Item>> { "Link": Option<String>, };`.
/// The doc comments go into `openapi.json`.
macro_rules! responses {
    ($(
        $(#[$($doc:tt)*])*
        $Name:ident = $status:tt $Body:ty $({ $($(#[$($header_doc:tt)*])* $header:literal: $Header:ty,)+ })?;
    )+) => {$(
        #[derive(::poem_openapi::ApiResponse)]
        enum $Name {
            $(#[$($doc)*])*
            #[oai(status = $status)]
            Ok($Body, $($($(#[$($header_doc)*])* #[oai(header = $header)] $Header,)+)?),
        }
    )+};
}

pub(crate) use openapi_response_type;
pub(crate) use openapi_type;
pub(crate) use responses;

openapi_response_type!(
    {<T: Type + Serialize>} Nullable<T>,
    format!("nullable_{}", T::name()),
    T::schema_ref().merge(MetaSchema { nullable: true, ..MetaSchema::ANY }),
    refers to T
);
openapi_response_type!(
    Decimal,
    "decimal",
    MetaSchema { format: Some("decimal"), example: Some(1500.into()), ..MetaSchema::new("number") }
);
openapi_response_type!(
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
    fn timestamps_are_in_utc_with_microseconds() {
        for (time, expected) in [
            (datetime!(2024-01-15 10:30 UTC), "2024-01-15T10:30:00.000000Z"),
            (datetime!(2024-01-15 00:30:00.000001 +5:30), "2024-01-14T19:00:00.000001Z"),
        ] {
            assert_eq!(serde_json::to_string(&Timestamp(time)).ok(), Some(format!("\"{expected}\"")));
        }
    }
}
