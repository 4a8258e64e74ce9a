//! JSON bodies: read field by field in Pydantic's lax mode, every failing field reported at once.

mod fields;
mod list;

use std::{fmt::Display, marker::PhantomData};

use hyper::body::Bytes;
use poem::{
    Request, RequestBody,
    http::{HeaderMap, StatusCode, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, MetaSchemaRef, Registry},
    types::Type,
};
use serde_json::value::RawValue;

pub use self::{
    fields::{Fields, string, text},
    list::List,
};
use super::FieldError;
use crate::{middleware::body_limit, problem::Problem};

/// More failures of one body are not listed: a body made of nothing else would get an answer many times its size.
const MOST_ERRORS: usize = 100;

/// U+FEFF in UTF-8 (RFC 8259 §8.1: a reader may ignore it).
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What a JSON object is read into.
pub trait FromBody: Sized {
    /// The type whose schema `openapi.json` shows for the body.
    type Schema: Type;

    /// A field that no answer repeats, nor anything else of the body that could have it: answers end up in logs.
    const SECRET: Option<&'static str> = None;

    /// Reads every field, and answers `None` when any of them failed.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

/// What a whole body is read into: an object, which any [`FromBody`] is, or a [`List`] of them.
pub trait FromWhole: Sized {
    /// Makes the schemas known that [`Self::schema`] refers to.
    fn register(registry: &mut Registry);

    /// How `openapi.json` describes the body.
    fn schema() -> MetaSchemaRef;

    /// Parses and validates.
    ///
    /// # Errors
    /// 400 when it is not JSON in UTF-8, 422 with all failing fields.
    fn parse(raw: &[u8]) -> Result<Self, Problem>;
}

impl<T: FromBody> FromWhole for T {
    fn register(registry: &mut Registry) {
        T::Schema::register(registry);
    }

    fn schema() -> MetaSchemaRef {
        T::Schema::schema_ref()
    }

    fn parse(raw: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::parse(raw, T::SECRET)?;
        match T::read(&mut fields) {
            Some(value) if fields.errors.is_empty() => Ok(value),
            _ => Err(Problem::invalid(fields.errors)),
        }
    }
}

/// The JSON body of a request: here, bounded and declared as JSON, but not parsed yet, since a signature is over its bytes.
pub struct Body<T> {
    raw: Bytes,
    read_as: PhantomData<fn() -> T>,
}

impl<T: FromWhole> Body<T> {
    /// The bytes as they came.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Parses and validates.
    ///
    /// # Errors
    /// 400 when it is not JSON in UTF-8, 422 with all failing fields.
    pub fn read(&self) -> Result<T, Problem> {
        T::parse(&self.raw)
    }
}

impl<'a, T: FromWhole> ApiExtractor<'a> for Body<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let json = MetaMediaType { content_type: "application/json", schema: T::schema() };
        Some(MetaRequest { description: None, content: vec![json], required: true })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        // Read even when it will be refused: the client reads no answer before it has sent all.
        let raw = body_limit::read(body.take()?).await?;
        check_declared_as_json(request.headers())?;
        Ok(Self { raw, read_as: PhantomData })
    }
}

/// No `Content-Type` counts as JSON; so do `application/json` and `application/*+json`, with any parameters.
fn check_declared_as_json(headers: &HeaderMap) -> Result<(), Problem> {
    for declared in headers.get_all(header::CONTENT_TYPE) {
        let essence = declared.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let json = essence.eq_ignore_ascii_case("application/json")
            || essence.split_once('/').is_some_and(|(kind, subtype)| {
                let suffix = subtype.len().checked_sub("+json".len()).and_then(|at| subtype.get(at..));
                kind.eq_ignore_ascii_case("application") && suffix.is_some_and(|s| s.eq_ignore_ascii_case("+json"))
            });
        if !json {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json."));
        }
    }
    // An encoded body would only look like broken JSON.
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        Ok(())
    } else {
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Encoding is not supported."))
    }
}

/// The text of a body that should begin with `opening`; a body that may hold a secret is not repeated. A byte order mark,
/// which some editors and libraries write, is left out.
///
/// # Errors
/// 400 when it is not JSON in UTF-8; 422 when there is none, or with `otherwise` when it is JSON of another kind.
fn text_of(raw: &[u8], opening: char, otherwise: fn() -> FieldError, secret: bool) -> Result<&str, Problem> {
    let raw = raw.strip_prefix(BYTE_ORDER_MARK).unwrap_or(raw);
    if raw.is_empty() {
        return Err(Problem::invalid(vec![FieldError::missing().in_whole("body", None)]));
    }
    let whole = std::str::from_utf8(raw).map_err(|error| not_json(&error))?;
    if !whole.trim_start().starts_with(opening) {
        serde_json::from_str::<&RawValue>(whole).map_err(|error| not_json(&error))?;
        return Err(Problem::invalid(vec![otherwise().in_whole("body", Some(whole).filter(|_| !secret))]));
    }
    Ok(whole)
}

fn not_json(error: &dyn Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("Not JSON: {error}."))
}

#[cfg(test)]
mod tests;
