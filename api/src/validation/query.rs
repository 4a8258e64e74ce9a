//! Query parameters: declared in `openapi.json` like any other, but failing in Pydantic's words and all at once.

use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef, Registry},
};

use super::{Invalid, Wrong};

/// A value that a query parameter can have.
pub trait QueryValue: Sized + Send {
    /// Whether `openapi.json` says that it must be given.
    const REQUIRED: bool = false;

    /// How `openapi.json` describes it.
    fn schema() -> MetaSchema;

    /// Reads it; the text is not empty and free of outer blanks.
    fn read(text: &str) -> Result<Self, Wrong>;

    /// What one without a text means; not given, unless it says otherwise.
    fn read_empty() -> Result<Option<Self>, Wrong> {
        Ok(None)
    }
}

/// An optional query parameter, read but not judged yet, so that a handler can report all that failed at once.
/// An empty one counts as not given, as `?status=&limit=` is what a form sends; of several the last one counts.
pub struct Query<T>(Result<Option<T>, Invalid>);

impl<T> Query<T> {
    /// The value, or an error noted among `errors`.
    pub fn or_note(self, errors: &mut Vec<Invalid>) -> Option<T> {
        self.0.unwrap_or_else(|invalid| {
            errors.push(invalid);
            None
        })
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

/// No parameter of this kind has a default in the macro's sense.
pub struct NeverDefault;

fn read<T: QueryValue>(query: Option<&str>, name: &'static str) -> Result<Option<T>, Invalid> {
    let Some(value) = query.and_then(|query| last_value(query, name)) else { return Ok(None) };
    let text = value.trim();
    let read = match text {
        "" => T::read_empty(),
        _ if text.contains('\0') => Err(Wrong::nul()),
        _ => T::read(text).map(Some),
    };
    read.map_err(|wrong| {
        let input = serde_json::to_string(&value).ok();
        wrong.at("query", name, input.as_deref())
    })
}

/// The last value of a parameter, decoded; bytes that are not UTF-8 become replacement characters.
fn last_value(query: &str, name: &str) -> Option<String> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    query.rsplit('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

/// A number of seconds to wait for a change, fractions allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wait(pub f64);

/// How long a `wait` may be: shorter than the time after which common proxies give up on an answer.
pub const LONGEST_WAIT_SECONDS: u8 = 60;

impl QueryValue for Wait {
    fn schema() -> MetaSchema {
        MetaSchema {
            minimum: Some(0.0),
            maximum: Some(f64::from(LONGEST_WAIT_SECONDS)),
            example: Some(10.into()),
            ..MetaSchema::new("number")
        }
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let seconds: f64 = text.parse().map_err(|_| Wrong::not_a_number())?;
        if !seconds.is_finite() {
            return Err(Wrong::not_finite());
        }
        check_range(seconds, 0, LONGEST_WAIT_SECONDS)?;
        Ok(Self(seconds))
    }
}

/// The largest number of entries on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub u8);

impl Limit {
    /// What a page holds at most, whatever is asked for.
    pub const MOST: u8 = 100;
    /// What a page holds when nothing is asked for.
    pub const DEFAULT: Self = Self(20);
}

impl QueryValue for Limit {
    fn schema() -> MetaSchema {
        MetaSchema {
            minimum: Some(1.0),
            maximum: Some(f64::from(Self::MOST)),
            default: Some(Self::DEFAULT.0.into()),
            ..MetaSchema::new("integer")
        }
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let limit: i64 = text.parse().map_err(|_| {
            Wrong::new("int_parsing", "Input should be a valid integer, unable to parse string as an integer")
        })?;
        check_range(limit as f64, 1, Self::MOST)?;
        u8::try_from(limit).map(Self).map_err(|_| Wrong::rule("limit is out of range"))
    }
}

/// How many entries to leave out before the page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skip(pub i64);

impl QueryValue for Skip {
    fn schema() -> MetaSchema {
        MetaSchema { minimum: Some(0.0), default: Some(0.into()), ..MetaSchema::new_with_format("integer", "int64") }
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let unread =
            || Wrong::new("int_parsing", "Input should be a valid integer, unable to parse string as an integer");
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(unread());
        }
        if text.starts_with('-') && digits.bytes().any(|byte| byte != b'0') {
            check_range(-1.0, 0, 0)?;
        }
        // Beyond every list there is nothing, however far beyond.
        Ok(Self(digits.parse().unwrap_or(i64::MAX)))
    }
}

fn check_range(value: f64, least: u8, most: u8) -> Result<(), Wrong> {
    if value < f64::from(least) {
        return Err(Wrong::below(least.into()));
    }
    if value > f64::from(most) {
        return Err(Wrong::above(most.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T: QueryValue + std::fmt::Debug>(query: &str, name: &'static str) -> &'static str {
        match read::<T>(Some(query), name) {
            Ok(_) => "ok",
            Err(invalid) => invalid.kind,
        }
    }

    #[test]
    fn wait_is_a_number_of_seconds_up_to_sixty() {
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
            ("", "ok"),
            ("%00", "value_error"),
        ] {
            assert_eq!(kind::<Wait>(&format!("wait={text}"), "wait"), expected, "{text}");
        }
        assert_eq!(read::<Wait>(Some("wait=1&a=2&wait=3.5"), "wait").ok().flatten(), Some(Wait(3.5)));
        assert_eq!(read::<Wait>(Some("waits=1"), "wait").ok().flatten(), None);
    }

    #[test]
    fn limit_is_a_whole_number_up_to_a_hundred() {
        for (text, expected) in [
            ("1", "ok"),
            ("100", "ok"),
            ("101", "less_than_equal"),
            ("0", "greater_than_equal"),
            ("ten", "int_parsing"),
            ("1.5", "int_parsing"),
            ("99999999999999999999", "int_parsing"),
        ] {
            assert_eq!(kind::<Limit>(&format!("limit={text}"), "limit"), expected, "{text}");
        }
    }

    #[test]
    fn skip_is_a_whole_number_from_zero() {
        for (text, expected) in [
            ("0", "ok"),
            ("-0", "ok"),
            ("99999999999999999999", "ok"),
            ("-1", "greater_than_equal"),
            ("ten", "int_parsing"),
            ("1.5", "int_parsing"),
            ("-", "int_parsing"),
        ] {
            assert_eq!(kind::<Skip>(&format!("skip={text}"), "skip"), expected, "{text}");
        }
    }

    #[test]
    fn names_the_parameter() {
        let invalid = read::<Limit>(Some("limit=x%22y"), "limit").expect_err("not a number");
        let json = serde_json::to_value(&invalid).unwrap_or_default();
        assert_eq!(json["loc"], serde_json::json!(["query", "limit"]));
        assert_eq!(json["input"], "x\"y");
    }
}
