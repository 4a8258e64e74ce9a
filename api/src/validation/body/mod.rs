//! JSON bodies: read field by field in Pydantic's lax mode, with all failing fields reported at once.

mod fields;
mod list;
mod rows;

use std::{
    fmt::{self, Display},
    marker::PhantomData,
};

use hyper::body::Bytes;
use poem::{
    Request, RequestBody,
    http::{HeaderMap, StatusCode, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry},
};
use serde::{
    Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

pub(crate) use self::{
    fields::Fields,
    list::List,
    rows::{InvalidRow, Row, RowType, Rows},
};
use super::FieldError;
use crate::{middleware::body_limit, problem::Problem};

/// The largest number of errors reported for one body. A body of errors alone would otherwise get a response many times
/// its size.
const MAX_ERRORS: usize = 100;

/// U+FEFF in UTF-8, which a parser may ignore (RFC 8259 §8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A type that is read from a JSON object.
pub(crate) trait FromJsonObject: Sized {
    /// The name of the object in `openapi.json`.
    const NAME: &'static str;

    /// A secret field, such as a password. Responses end up in logs, so neither this field nor any part of the body
    /// that could contain it is echoed.
    const SECRET: Option<&'static str> = None;

    /// The schema of the object in `openapi.json`.
    fn schema() -> MetaSchema;

    /// Reads every field and returns `None` if one of them fails; its error is then in `fields`.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

/// A type that is read from a whole body: a [`FromJsonObject`] or a [`List`] of them.
pub(crate) trait FromJsonBody: Sized {
    /// Registers the schemas that [`Self::schema`] refers to.
    fn register(registry: &mut Registry);

    /// The schema of the body in `openapi.json`.
    fn schema() -> MetaSchemaRef;

    /// Parses and validates the body.
    ///
    /// # Errors
    /// 400 if the body is not JSON in UTF-8; 422 with all failing fields.
    fn parse(raw: &[u8]) -> Result<Self, Problem>;
}

impl<T: FromJsonObject> FromJsonBody for T {
    fn register(registry: &mut Registry) {
        registry.create_schema::<T, _>(T::NAME.into(), |_| T::schema());
    }

    fn schema() -> MetaSchemaRef {
        MetaSchemaRef::Reference(T::NAME.into())
    }

    fn parse(raw: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::parse(raw, T::SECRET)?;
        match T::read(&mut fields) {
            Some(value) if fields.errors.is_empty() => Ok(value),
            _ => Err(Problem::invalid(fields.errors)),
        }
    }
}

/// The JSON body of a request: read completely, limited in size and declared as JSON. Parsed only by [`Body::read`],
/// since a webhook's signature covers the raw bytes.
pub(crate) struct Body<T> {
    raw: Bytes,
    read_as: PhantomData<fn() -> T>,
}

impl<T: FromJsonBody> Body<T> {
    /// The bytes as received.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Parses and validates the body.
    ///
    /// # Errors
    /// 400 if the body is not JSON in UTF-8; 422 with all failing fields.
    pub(crate) fn read(&self) -> Result<T, Problem> {
        T::parse(&self.raw)
    }
}

impl<'a, T: FromJsonBody> ApiExtractor<'a> for Body<T> {
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
        // Read the body even if it will be rejected: a client reads the response only after it has sent everything.
        let raw = body_limit::read(body.take()?).await?;
        check_declared_as_json(request.headers())?;
        Ok(Self { raw, read_as: PhantomData })
    }
}

/// Accepts `application/json` and `application/*+json` with any parameters. A missing `Content-Type` counts as JSON.
fn check_declared_as_json(headers: &HeaderMap) -> Result<(), Problem> {
    check_declared_as(headers, &[], "Content-Type must be application/json.")
}

/// Accepts JSON and `others`.
fn check_declared_as(headers: &HeaderMap, others: &[&str], expected: &'static str) -> Result<(), Problem> {
    for declared in headers.get_all(header::CONTENT_TYPE) {
        let essence = declared.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let is_json = essence.eq_ignore_ascii_case("application/json")
            || essence.split_once('/').is_some_and(|(kind, subtype)| {
                let suffix = subtype.len().checked_sub("+json".len()).and_then(|at| subtype.get(at..));
                kind.eq_ignore_ascii_case("application") && suffix.is_some_and(|s| s.eq_ignore_ascii_case("+json"))
            });
        if !is_json && !others.iter().any(|other| essence.eq_ignore_ascii_case(other)) {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, expected));
        }
    }
    // Without this check, a compressed body would be reported as broken JSON.
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        Ok(())
    } else {
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Encoding is not supported."))
    }
}

/// The text of a JSON body that must begin with `opening`. A body that may contain a secret is not echoed. A leading
/// byte order mark, which some editors and libraries write, is skipped.
///
/// # Errors
/// 400 if the body is not JSON in UTF-8; 422 if it is empty; 422 with `wrong_type` if it begins otherwise.
fn json_text(raw: &[u8], opening: char, wrong_type: fn() -> FieldError, secret: bool) -> Result<&str, Problem> {
    let raw = raw.strip_prefix(BYTE_ORDER_MARK).unwrap_or(raw);
    if raw.is_empty() {
        return Err(FieldError::missing().at_part("body", None).into());
    }
    let whole = std::str::from_utf8(raw).map_err(|error| not_json(&error))?;
    if !whole.trim_start().starts_with(opening) {
        serde_json::from_str::<&RawValue>(whole).map_err(|error| not_json(&error))?;
        return Err(wrong_type().at_part("body", Some(whole).filter(|_| !secret)).into());
    }
    Ok(whole)
}

/// Reads the elements of a list, each as soon as it is parsed. `read` gets the index and the raw JSON of an element.
///
/// # Errors
/// 400 if the text is not JSON, or if `read` finds that an element is not.
fn read_elements(text: &str, read: impl FnMut(usize, &str) -> serde_json::Result<()>) -> Result<(), Problem> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json.deserialize_seq(ElementVisitor(read)).and_then(|()| json.end());
    read.map_err(|error| not_json(&error))
}

struct ElementVisitor<F>(F);

impl<'de, F: FnMut(usize, &str) -> serde_json::Result<()>> Visitor<'de> for ElementVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(element) = list.next_element::<&RawValue>()? {
            (self.0)(index, element.get()).map_err(Error::custom)?;
            index += 1;
        }
        Ok(())
    }
}

fn not_json(error: &dyn Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("Not JSON: {error}."))
}

#[cfg(test)]
mod tests;
