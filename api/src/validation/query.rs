//! Query parameters: declared in `openapi.json`, with Pydantic's error texts.

use std::time::Duration;

use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef, Registry},
};

use super::{FieldError, ValidationError, number::number_from_text};
use crate::schema::inline;

/// The type of a query parameter.
pub(crate) trait QueryValue {
    /// The type that the parameter is read as.
    type Out;

    /// Whether a request without the parameter is rejected.
    const REQUIRED: bool = true;

    /// The schema in `openapi.json`.
    fn schema() -> MetaSchema;

    /// Reads the value. The text has no outer blanks and may be empty.
    ///
    /// # Errors
    /// The text is invalid; the error has Pydantic's type and message.
    fn read(text: &str) -> Result<Self::Out, FieldError>;

    /// The value of an absent parameter; `None` if the parameter is required.
    fn when_absent() -> Option<Self::Out> {
        None
    }
}

impl<T: QueryValue> QueryValue for Option<T> {
    type Out = Option<T::Out>;

    const REQUIRED: bool = false;

    fn schema() -> MetaSchema {
        T::schema()
    }

    fn read(text: &str) -> Result<Self::Out, FieldError> {
        T::read(text).map(Some)
    }

    fn when_absent() -> Option<Self::Out> {
        Some(None)
    }
}

/// A query parameter. It keeps its error, so that a handler can report the errors of all parts with
/// [`AllValid`](super::AllValid). As in Pydantic, an empty value is read like any other text, and the last of several
/// values counts.
pub(crate) struct Query<T: QueryValue>(pub Result<T::Out, ValidationError>);

impl<'a, T: QueryValue> ApiExtractor<'a> for Query<T>
where
    T::Out: Send,
{
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    const PARAM_IS_REQUIRED: bool = T::REQUIRED;

    type ParamType = NeverDefault;
    type ParamRawType = NeverDefault;

    fn register(_: &mut Registry) {}

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(inline(T::schema()))
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        options: ExtractParamOptions<NeverDefault>,
    ) -> poem::Result<Self> {
        Ok(Self(read::<T>(request.uri().query(), options.name)))
    }
}

/// The type of a default in the framework's macro, which no parameter of this kind has.
pub(crate) struct NeverDefault;

fn read<T: QueryValue>(query: Option<&str>, name: &'static str) -> Result<T::Out, ValidationError> {
    let Some(value) = query.and_then(|query| last_value(query, name)) else {
        return T::when_absent().ok_or_else(|| FieldError::missing().at("query", name, None));
    };
    let (value, read) = match String::from_utf8(value) {
        Ok(value) => {
            let text = value.trim();
            let read = if text.contains('\0') { Err(FieldError::nul()) } else { T::read(text) };
            (value, read)
        }
        Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), Err(FieldError::not_unicode())),
    };
    read.map_err(|error| error.at_text("query", name, &value))
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
pub(crate) struct Wait;

/// The longest `wait`: shorter than the response time-outs of common proxies.
pub(super) const MAX_WAIT_SECONDS: u8 = 60;

impl QueryValue for Wait {
    type Out = Duration;

    fn schema() -> MetaSchema {
        MetaSchema {
            minimum: Some(0.0),
            maximum: Some(f64::from(MAX_WAIT_SECONDS)),
            example: Some(10.into()),
            ..MetaSchema::new("number")
        }
    }

    fn read(text: &str) -> Result<Duration, FieldError> {
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
        Ok(Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::Integer;

    fn kind<T: QueryValue>(query: &str, name: &'static str) -> &'static str {
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
            ("%207%20", "ok"),
            ("%00", "value_error"),
            ("%FF", "string_unicode"),
        ] {
            assert_eq!(kind::<Wait>(&format!("wait={text}"), "wait"), expected, "{text}");
        }
        assert_eq!(read::<Wait>(Some("wait=1&a=2&wait=3.5"), "wait").ok(), Some(Duration::from_millis(3500)));
        assert_eq!(read::<Option<Wait>>(Some("waits=1"), "wait").ok(), Some(None));
    }

    #[test]
    fn an_error_names_the_parameter_and_its_value() {
        let error = read::<Integer<1, 100>>(Some("limit=x%22y"), "limit").expect_err("not a number");
        let json = serde_json::to_value(&error).unwrap_or_default();
        assert_eq!(json["loc"], serde_json::json!(["query", "limit"]));
        assert_eq!(json["input"], "x\"y");
    }
}
