//! The errors of invalid input, with Pydantic v2's texts, which clients match on.

use std::borrow::Cow;

use poem_openapi::registry::MetaSchema;
use serde::{Serialize, Serializer};
use serde_json::{Value, value::RawValue};

use crate::schema::{any_of, described, list_of, object};

/// Longer inputs are not echoed: each error would make the response larger by the whole input.
const MAX_ECHO_BYTES: usize = 4096;

/// One entry of a 422 response: an error and the location of its field.
#[derive(Debug, Clone, Serialize)]
pub struct ValidationError {
    loc: Vec<PathSegment>,
    pub(crate) msg: Cow<'static, str>,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    input: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "serialize_ctx")]
    ctx: Vec<(&'static str, Value)>,
}

/// One segment of a location such as `["body", "amount"]`, or `["body", 0, "interest_rate"]` in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum PathSegment {
    Name(Cow<'static, str>),
    Index(usize),
}

/// The error of a value whose location in the request is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) kind: &'static str,
    pub(crate) msg: Cow<'static, str>,
    ctx: Vec<(&'static str, Value)>,
}

impl FieldError {
    /// An error with Pydantic's type and message.
    pub(crate) fn new(kind: &'static str, msg: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, msg: msg.into(), ctx: Vec::new() }
    }

    /// Adds a value that the message contains, under Pydantic's name for it, so that clients need not parse the message.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.ctx.push((name, value.into()));
        self
    }

    /// A violated rule of this service, in the form that Pydantic gives a custom validator's `ValueError`.
    pub(crate) fn value_error(rule: impl std::fmt::Display) -> Self {
        Self::new("value_error", format!("Value error, {rule}"))
    }

    /// A text with a NUL character, which PostgreSQL cannot store.
    pub(crate) fn nul() -> Self {
        Self::value_error("text must not contain NUL")
    }

    /// A value that is not a text.
    pub(crate) fn not_a_string() -> Self {
        Self::new("string_type", "Input should be a valid string")
    }

    /// Bytes that are not UTF-8, or an escape that is half of a surrogate pair.
    pub(crate) fn not_unicode() -> Self {
        Self::new("string_unicode", "Input should be a valid string, unable to parse raw data as a unicode string")
    }

    /// A text with fewer than `min` characters.
    pub(crate) fn too_short(min: usize) -> Self {
        let msg = format!("String should have at least {min} character{}", plural(min));
        Self::new("string_too_short", msg).with("min_length", min)
    }

    /// A text with more than `max` characters.
    pub(crate) fn too_long(max: usize) -> Self {
        let msg = format!("String should have at most {max} character{}", plural(max));
        Self::new("string_too_long", msg).with("max_length", max)
    }

    /// A text that is not one of these names.
    pub(crate) fn not_one_of(names: &str) -> Self {
        Self::new("enum", format!("Input should be {names}"))
    }

    /// A required field that is absent.
    pub(crate) fn missing() -> Self {
        Self::new("missing", "Field required")
    }

    /// A text that is not a number.
    pub(crate) fn not_a_number() -> Self {
        Self::new("float_parsing", "Input should be a valid number, unable to parse string as a number")
    }

    /// NaN or an infinite number.
    pub(crate) fn not_finite() -> Self {
        Self::new("finite_number", "Input should be a finite number")
    }

    /// A number below the minimum.
    pub(crate) fn below(min: i64) -> Self {
        let msg = format!("Input should be greater than or equal to {min}");
        Self::new("greater_than_equal", msg).with("ge", min)
    }

    /// A number above the maximum.
    pub(crate) fn above(max: i64) -> Self {
        let msg = format!("Input should be less than or equal to {max}");
        Self::new("less_than_equal", msg).with("le", max)
    }

    /// A decimal with more than `max` digits after the point.
    pub(crate) fn too_many_places(max: i64) -> Self {
        let msg = format!("Decimal input should have no more than {max} decimal places");
        Self::new("decimal_max_places", msg).with("decimal_places", max)
    }

    /// A decimal with more than `max` digits before the point.
    pub(crate) fn too_many_whole_digits(max: i64) -> Self {
        let msg = format!("Decimal input should have no more than {max} digits before the decimal point");
        Self::new("decimal_whole_digits", msg).with("whole_digits", max)
    }

    /// Locates the error at `part` of the request as a whole, such as `body`.
    pub(crate) fn at_part(self, part: &'static str, input: Option<&str>) -> ValidationError {
        self.with_location(vec![PathSegment::Name(part.into())], input)
    }

    /// Locates the error at the field `name` of `part`.
    pub(crate) fn at(self, part: &'static str, name: &str, input: Option<&str>) -> ValidationError {
        self.with_location(vec![PathSegment::Name(part.into()), PathSegment::Name(name.to_owned().into())], input)
    }

    /// Locates the error at the field `name` of `part`, whose value is this text.
    pub(crate) fn at_text(self, part: &'static str, name: &str, text: &str) -> ValidationError {
        self.at(part, name, serde_json::to_string(text).ok().as_deref())
    }

    /// Locates the error at the element `index` of a list, or at the field `name` of that element.
    pub(crate) fn at_element(self, index: usize, name: Option<&str>, input: Option<&str>) -> ValidationError {
        let mut loc = vec![PathSegment::Name("body".into()), PathSegment::Index(index)];
        loc.extend(name.map(|name| PathSegment::Name(name.to_owned().into())));
        self.with_location(loc, input)
    }

    fn with_location(self, loc: Vec<PathSegment>, input: Option<&str>) -> ValidationError {
        // Half of a surrogate pair, `1e400` and deep nesting are JSON, but most parsers reject them: they are not
        // echoed.
        let is_parseable = |raw: &&str| serde_json::from_str::<Value>(raw).is_ok();
        let input = input.filter(|raw| raw.len() <= MAX_ECHO_BYTES).filter(is_parseable);
        let input = input.and_then(|raw| RawValue::from_string(raw.into()).ok());
        ValidationError { loc, msg: self.msg, kind: self.kind, input, ctx: self.ctx }
    }
}

impl std::fmt::Display for ValidationError {
    /// The form for the log: the location and type, but never the input.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for step in &self.loc {
            match step {
                PathSegment::Name(name) => write!(f, "{name} ")?,
                PathSegment::Index(index) => write!(f, "{index} ")?,
            }
        }
        f.write_str(self.kind)
    }
}

impl ValidationError {
    /// The schema in `openapi.json`.
    pub fn schema() -> MetaSchema {
        let text = |example: &str| MetaSchema { example: Some(example.into()), ..MetaSchema::new("string") };
        let step = any_of([MetaSchema::new("string"), MetaSchema::new("integer")]);
        let loc = MetaSchema { example: Some(serde_json::json!(["body", "amount"])), ..list_of(step) };
        let input =
            described("The value that the request has; `null` if it has more than 4,096 bytes.", MetaSchema::ANY);
        object(3, [("loc", loc), ("msg", text("Field required")), ("type", text("missing")), ("input", input)])
    }
}

fn plural(number: usize) -> &'static str {
    if number == 1 { "" } else { "s" }
}

/// Writes the pairs as an object: `{"gt": 0}`.
fn serialize_ctx<S: Serializer>(ctx: &[(&'static str, Value)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(ctx.iter().map(|(name, value)| (name, value)))
}
