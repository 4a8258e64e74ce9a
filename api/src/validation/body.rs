//! JSON bodies: read field by field in Pydantic's lax mode, every failing field reported at once.

mod integer;

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt::{self, Display},
    marker::PhantomData,
    ops::RangeInclusive,
};

use hyper::body::Bytes;
use jobs::transactions::{Amount, AmountError};
use poem::{
    Request, RequestBody,
    http::{HeaderMap, StatusCode, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, Registry},
    types::Type,
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Invalid, Loc, Wrong};
use crate::{middleware::body_limit, problem::Problem};

/// More failures of one body are not listed: a body made of nothing else would get an answer many times its size.
const MOST_ERRORS: usize = 100;
/// Up to here, comparing each key with all before it is faster than a set; beyond, it would be quadratic.
const FEW_FIELDS: usize = 16;

/// What a JSON object is read into.
pub trait FromBody: Sized {
    /// The type whose schema `openapi.json` shows for the body.
    type Schema: Type;

    /// Reads every field, and answers `None` when any of them failed.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

/// The JSON body of a request: here, bounded and declared as JSON, but not parsed yet, since a signature is over its bytes.
pub struct Body<T> {
    raw: Bytes,
    read_as: PhantomData<fn() -> T>,
}

impl<T: FromBody> Body<T> {
    /// The bytes as they came.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Parses and validates.
    ///
    /// # Errors
    /// 400 when it is not JSON in UTF-8, 422 with all failing fields.
    pub fn read(&self) -> Result<T, Problem> {
        let mut fields = Fields::parse(&self.raw)?;
        match T::read(&mut fields) {
            Some(value) if fields.errors.is_empty() => Ok(value),
            _ => Err(Problem::invalid(fields.errors)),
        }
    }
}

impl<'a, T: FromBody> ApiExtractor<'a> for Body<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::Schema::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let json = MetaMediaType { content_type: "application/json", schema: T::Schema::schema_ref() };
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
    if let Some(declared) = headers.get(header::CONTENT_TYPE) {
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
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Encoding is not supported."))
        }
        _ => Ok(()),
    }
}

/// The fields of a JSON object with their raw texts, and everything found wrong with them so far.
#[derive(Debug)]
pub struct Fields<'a> {
    whole: &'a str,
    /// A field that no answer repeats.
    secret: Option<&'static str>,
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    errors: Vec<Invalid>,
}

impl<'a> Fields<'a> {
    /// Finds the fields of the object. Values stay unparsed, so their depth costs nothing and their numbers stay exact.
    fn parse(raw: &'a [u8]) -> Result<Self, Problem> {
        if raw.is_empty() {
            return Err(Problem::invalid(vec![Wrong::missing().in_whole("body", None)]));
        }
        let not_json = |error: &dyn Display| Problem::new(StatusCode::BAD_REQUEST, format!("Not JSON: {error}."));
        let whole = std::str::from_utf8(raw).map_err(|error| not_json(&error))?;
        if !whole.trim_start().starts_with('{') {
            serde_json::from_str::<&RawValue>(whole).map_err(|error| not_json(&error))?;
            let wrong = Wrong::new(
                "model_attributes_type",
                "Input should be a valid dictionary or object to extract fields from",
            );
            return Err(Problem::invalid(vec![wrong.in_whole("body", Some(whole))]));
        }
        let Object(fields) = serde_json::from_str(whole).map_err(|error| not_json(&error))?;
        let mut fields = Self { whole, secret: None, fields, errors: Vec::new() };
        fields.report_duplicates();
        Ok(fields)
    }

    /// Two values under one key are two opinions about what was sent.
    fn report_duplicates(&mut self) {
        let mut seen = HashSet::new();
        let mut duplicates = Vec::new();
        for (at, (key, value)) in self.fields.iter().enumerate() {
            let again = if self.fields.len() <= FEW_FIELDS {
                self.fields.iter().take(at).any(|(earlier, _)| earlier == key)
            } else {
                !seen.insert(key)
            };
            if again && duplicates.len() < MOST_ERRORS {
                duplicates.push(Wrong::rule("duplicate key").at("body", key, Some(value.get())));
            }
        }
        self.errors.append(&mut duplicates);
    }

    /// Makes sure that no answer repeats this field, nor the body as a whole, which has it: answers end up in logs.
    pub fn keep_secret(&mut self, name: &'static str) {
        self.secret = Some(name);
        let is_it = |invalid: &&mut Invalid| matches!(&invalid.loc, Loc::Field(_, field) if field == name);
        self.errors.iter_mut().filter(is_it).for_each(|invalid| invalid.input = None);
    }

    /// A text of so many characters.
    pub fn text(&mut self, name: &'static str, length: RangeInclusive<usize>) -> Option<String> {
        self.text_as(name, length, Ok)
    }

    /// A text of so many characters, and what `read` makes of it.
    pub fn text_as<T>(
        &mut self,
        name: &'static str,
        length: RangeInclusive<usize>,
        read: impl FnOnce(String) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.field(name, |raw| text(raw, length).and_then(read))
    }

    /// A positive decimal, from a JSON number or string, never through a float.
    pub fn amount(&mut self, name: &'static str) -> Option<Amount> {
        self.field(name, amount)
    }

    /// An ISO 4217 code that is in use.
    pub fn currency(&mut self, name: &'static str) -> Option<String> {
        self.field(name, currency)
    }

    /// A text of so many characters, that may be absent or null.
    pub fn optional_text(&mut self, name: &'static str, length: RangeInclusive<usize>) -> Option<Option<String>> {
        self.optional(name, |raw| text(raw, length))
    }

    /// A field of any kind that may be absent or null; `read` gets its raw JSON.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'a str) -> Result<T, Wrong>,
    ) -> Option<Option<T>> {
        let given = self.fields.iter().any(|(key, value)| key == name && value.get() != "null");
        if given { self.field(name, read).map(Some) } else { Some(None) }
    }

    /// A required field of any kind; `read` gets its raw JSON.
    pub fn field<T>(&mut self, name: &'static str, read: impl FnOnce(&'a str) -> Result<T, Wrong>) -> Option<T> {
        let invalid = match self.fields.iter().find(|(key, _)| key == name) {
            None => Wrong::missing().at("body", name, self.secret.is_none().then_some(self.whole)),
            Some((_, value)) => match read(value.get()) {
                Ok(value) => return Some(value),
                Err(wrong) => wrong.at("body", name, (self.secret != Some(name)).then_some(value.get())),
            },
        };
        self.errors.push(invalid);
        None
    }
}

/// A JSON string's text, or `None` when the raw JSON is not a string.
fn string(raw: &str) -> Option<Result<Cow<'_, str>, Wrong>> {
    if !raw.starts_with('"') {
        return None;
    }
    Some(serde_json::from_str::<Text<'_>>(raw).map(|Text(text)| text).map_err(|_| {
        // The raw text is well-formed JSON, so only half of a surrogate pair is left to be wrong.
        Wrong::new("string_unicode", "Input should be a valid string, unable to parse raw data as a unicode string")
    }))
}

fn text(raw: &str, length: RangeInclusive<usize>) -> Result<String, Wrong> {
    let text = string(raw).ok_or_else(|| Wrong::new("string_type", "Input should be a valid string"))??;
    let (least, most) = length.into_inner();
    // The number of bytes bounds the number of characters, and mostly settles the question without counting.
    let count = if text.len() < least || text.len() > most || least > 1 { text.chars().count() } else { least.max(1) };
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    if text.is_empty() && least > 0 || count < least {
        let msg = format!("String should have at least {least} character{}", plural(least));
        return Err(Wrong::new("string_too_short", msg).limit("min_length", least as i64));
    }
    if count > most {
        let msg = format!("String should have at most {most} character{}", plural(most));
        return Err(Wrong::new("string_too_long", msg).limit("max_length", most as i64));
    }
    if text.contains('\0') { Err(Wrong::nul()) } else { Ok(text.into_owned()) }
}

fn amount(raw: &str) -> Result<Amount, Wrong> {
    let text = match string(raw) {
        Some(text) => text?,
        None if raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => Cow::Borrowed(raw),
        None => {
            let msg = "Decimal input should be an integer, float, string or Decimal object";
            return Err(Wrong::new("decimal_type", msg));
        }
    };
    text.trim().parse().map_err(|error| match error {
        AmountError::NotDecimal => Wrong::new("decimal_parsing", "Input should be a valid decimal"),
        AmountError::NotFinite => Wrong::new("finite_number", "Input should be a finite number"),
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

fn currency(raw: &str) -> Result<String, Wrong> {
    let text = string(raw).ok_or_else(|| Wrong::new("string_type", "Input should be a valid string"))??;
    // The list marks VES as superseded by VED, but both are codes of the same bolívar and both are in ISO 4217.
    match iso_currency::Currency::from_code(&text) {
        Some(currency) if currency.is_superseded().is_none() || text == "VES" => Ok(text.into_owned()),
        _ => Err(Wrong::rule("currency must be an ISO 4217 code, such as INR")),
    }
}

/// A string that borrows from its JSON unless it had escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object's entries in their order, duplicates included; a map type of serde's would drop them.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::with_capacity(FEW_FIELDS / 2);
                while let Some((Text(key), value)) = map.next_entry()? {
                    fields.push((key, value));
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests;
