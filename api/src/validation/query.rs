//! Query parameters: declared in `openapi.json`, with Pydantic's error texts, and all errors reported at once.

use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef, Registry},
};

use super::{
    FieldError, ValidationError,
    number::{integer_from_text, integer_schema, number_from_text},
};

/// The type of a query parameter.
pub trait QueryValue: Sized + Send {
    /// Whether `openapi.json` declares the parameter as required.
    const REQUIRED: bool = false;

    /// The schema in `openapi.json`.
    fn schema() -> MetaSchema;

    /// Reads the value. The text has no outer blanks and may be empty.
    ///
    /// # Errors
    /// The text is invalid; the error has Pydantic's type and message.
    fn read(text: &str) -> Result<Self, FieldError>;
}

/// A query parameter. It keeps its error, so that a handler can report the errors of all parameters at once.
/// As in Pydantic, an empty value is read like any other text, and the last of several values counts.
pub struct Query<T>(Result<Option<T>, ValidationError>);

impl<T> Query<T> {
    /// The value; an error is added to `errors`.
    pub fn value_or_record(self, errors: &mut Vec<ValidationError>) -> Option<T> {
        self.0.unwrap_or_else(|error| {
            errors.push(error);
            None
        })
    }

    /// The value of a required parameter; an error is added to `errors`, also if the parameter is absent.
    pub fn required_or_record(self, name: &'static str, errors: &mut Vec<ValidationError>) -> Option<T> {
        let value = self.0.and_then(|value| match value {
            Some(value) => Ok(Some(value)),
            None => Err(FieldError::missing().at("query", name, None)),
        });
        Query(value).value_or_record(errors)
    }
}

impl<'a, T: QueryValue> ApiExtractor<'a> for Query<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    const PARAM_IS_REQUIRED: bool = T::REQUIRED;

    type ParamType = NeverDefault;
    type ParamRawType = NeverDefault;

    fn register(_: &mut Registry) {}

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(MetaSchemaRef::Inline(Box::new(T::schema())))
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        options: ExtractParamOptions<NeverDefault>,
    ) -> poem::Result<Self> {
        Ok(Self(read(request.uri().query(), options.name)))
    }
}

/// The type of a default in the framework's macro, which no parameter of this kind has.
pub struct NeverDefault;

fn read<T: QueryValue>(query: Option<&str>, name: &'static str) -> Result<Option<T>, ValidationError> {
    let Some(value) = query.and_then(|query| last_value(query, name)) else { return Ok(None) };
    let (value, read) = match String::from_utf8(value) {
        Ok(value) => {
            let text = value.trim();
            let read = if text.contains('\0') { Err(FieldError::nul()) } else { T::read(text) };
            (value, read)
        }
        Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), Err(FieldError::not_unicode())),
    };
    read.map(Some).map_err(|error| {
        let input = serde_json::to_string(&value).ok();
        error.at("query", name, input.as_deref())
    })
}

/// The last value of a parameter, percent-decoded.
fn last_value(query: &str, name: &str) -> Option<Vec<u8>> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).collect::<Vec<u8>>()
    };
    query.rsplit('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name.as_bytes()).then(|| decode(value))
    })
}

/// A number of seconds to wait for a change, fractions allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wait(pub f64);

/// The longest `wait`: shorter than the response time-outs of common proxies.
pub const MAX_WAIT_SECONDS: u8 = 60;

impl QueryValue for Wait {
    fn schema() -> MetaSchema {
        MetaSchema {
            minimum: Some(0.0),
            maximum: Some(f64::from(MAX_WAIT_SECONDS)),
            example: Some(10.into()),
            ..MetaSchema::new("number")
        }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        let seconds: f64 = number_from_text(text, |text| text.parse().map_err(|_| FieldError::not_a_number()))?;
        if !seconds.is_finite() {
            return Err(FieldError::not_finite());
        }
        if seconds < 0.0 {
            return Err(FieldError::below(0));
        }
        if seconds > f64::from(MAX_WAIT_SECONDS) {
            return Err(FieldError::above(MAX_WAIT_SECONDS.into()));
        }
        Ok(Self(seconds))
    }
}

/// The largest number of entries on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub u8);

impl Limit {
    /// The largest page that a client may request.
    pub const MAX: u8 = 100;
    /// The page size of a request without `limit`.
    pub const DEFAULT: Self = Self(20);
}

impl QueryValue for Limit {
    fn schema() -> MetaSchema {
        MetaSchema { default: Some(Self::DEFAULT.0.into()), ..integer_schema(1, Self::MAX.into()) }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        let limit = integer_from_text(text, 1, Self::MAX.into())?;
        u8::try_from(limit).map(Self).map_err(|_| FieldError::above(Self::MAX.into()))
    }
}

/// The number of entries to skip before the page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skip(pub i64);

impl QueryValue for Skip {
    fn schema() -> MetaSchema {
        MetaSchema { format: Some("int64"), default: Some(0.into()), ..integer_schema(0, i64::MAX) }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        integer_from_text(text, 0, i64::MAX).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T: QueryValue + std::fmt::Debug>(query: &str, name: &'static str) -> &'static str {
        match read::<T>(Some(query), name) {
            Ok(_) => "ok",
            Err(error) => error.kind,
        }
    }

    #[test]
    fn accepts_a_wait_of_up_to_60_seconds() {
        for (text, expected) in [
            ("0", "ok"),
            ("60", "ok"),
            ("0.25", "ok"),
            ("+5", "ok"),
            ("60.01", "less_than_equal"),
            ("-1", "greater_than_equal"),
            ("soon", "float_parsing"),
            ("NaN", "finite_number"),
            ("inf", "finite_number"),
            ("1_0", "ok"),
            ("1e1", "ok"),
            ("1__0", "float_parsing"),
            ("", "float_parsing"),
            ("%00", "value_error"),
            ("%FF", "string_unicode"),
        ] {
            assert_eq!(kind::<Wait>(&format!("wait={text}"), "wait"), expected, "{text}");
        }
        assert_eq!(read::<Wait>(Some("wait=1&a=2&wait=3.5"), "wait").ok().flatten(), Some(Wait(3.5)));
        assert_eq!(read::<Wait>(Some("waits=1"), "wait").ok().flatten(), None);
    }

    #[test]
    fn accepts_a_limit_of_1_to_100() {
        for (text, expected) in [
            ("1", "ok"),
            ("100", "ok"),
            ("101", "less_than_equal"),
            ("0", "greater_than_equal"),
            ("ten", "int_parsing"),
            ("1.5", "int_parsing"),
            ("1.0", "ok"),
            ("+7", "ok"),
            ("%207%20", "ok"),
            ("99999999999999999999", "less_than_equal"),
            ("-99999999999999999999", "greater_than_equal"),
            ("", "int_parsing"),
            ("%FF", "string_unicode"),
        ] {
            assert_eq!(kind::<Limit>(&format!("limit={text}"), "limit"), expected, "{text}");
        }
    }

    #[test]
    fn accepts_a_skip_of_0_or_more() {
        for (text, expected) in [
            ("0", "ok"),
            ("-0", "ok"),
            ("1.0", "ok"),
            ("9223372036854775807", "ok"),
            ("9223372036854775808", "less_than_equal"),
            ("99999999999999999999", "less_than_equal"),
            ("-1", "greater_than_equal"),
            ("ten", "int_parsing"),
            ("1.5", "int_parsing"),
            ("-", "int_parsing"),
        ] {
            assert_eq!(kind::<Skip>(&format!("skip={text}"), "skip"), expected, "{text}");
        }
    }

    #[test]
    fn an_error_names_the_parameter_and_its_value() {
        let error = read::<Limit>(Some("limit=x%22y"), "limit").expect_err("not a number");
        let json = serde_json::to_value(&error).unwrap_or_default();
        assert_eq!(json["loc"], serde_json::json!(["query", "limit"]));
        assert_eq!(json["input"], "x\"y");
    }
}
