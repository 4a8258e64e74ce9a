//! What is wrong with an input, in Pydantic v2's words: clients match on them.

mod body;
mod cursor;
mod number;
mod query;
mod request;
mod value;

use std::borrow::Cow;

pub use body::{Body, Fields, FromBody, FromWhole, List, string};
pub use cursor::Cursor;
pub use number::{any_of, decimal_in_json, integer_in_text, integer_schema, number_in_json, whole_in_text};
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
pub use query::{Limit, Query, QueryValue, Skip, Wait};
pub(crate) use request::request;
pub use request::{Field, object_schema};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
pub use value::{Integer, Stripped, Text, VISIBLE, Value, VisibleText, choice, text_schema};

/// Longer inputs are not repeated in the answer: it would only be as large as the request, once for every error.
const LONGEST_ECHO: usize = 4096;

/// One failing field.
#[derive(Debug, Clone, Serialize)]
pub struct ValidationError {
    loc: Vec<Step>,
    msg: Cow<'static, str>,
    #[serde(rename = "type")]
    kind: &'static str,
    input: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "serialize_ctx")]
    ctx: Vec<(&'static str, Ctx)>,
}

/// A step on the way to the field: `["body", "amount"]`, or `["body", 0, "interest_rate"]` in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Step {
    Name(Cow<'static, str>),
    Index(usize),
}

/// A part of what a message was made of, so that a client need not parse it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Ctx {
    Number(i64),
    Name(&'static str),
    Text(String),
}

/// What is wrong with a value, before it is known where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    kind: &'static str,
    msg: Cow<'static, str>,
    ctx: Vec<(&'static str, Ctx)>,
}

impl FieldError {
    /// One of Pydantic's own types with its message.
    pub fn new(kind: &'static str, msg: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, msg: msg.into(), ctx: Vec::new() }
    }

    /// The limit that was passed, by its name in Pydantic.
    pub fn limit(mut self, name: &'static str, limit: i64) -> Self {
        self.ctx.push((name, Ctx::Number(limit)));
        self
    }

    /// The kind of field that the limit is about, by its name in Pydantic.
    fn field_type(mut self, name: &'static str) -> Self {
        self.ctx.push(("field_type", Ctx::Name(name)));
        self
    }

    /// The words that would have been right.
    fn expected(mut self, words: &'static str) -> Self {
        self.ctx.push(("expected", Ctx::Name(words)));
        self
    }

    /// What a parser said.
    fn error(mut self, reason: String) -> Self {
        self.ctx.push(("error", Ctx::Text(reason)));
        self
    }

    /// A rule of ours, as Pydantic words the `ValueError` of a custom validator.
    pub fn rule(rule: &'static str) -> Self {
        Self::new("value_error", format!("Value error, {rule}"))
    }

    /// A text that PostgreSQL cannot hold.
    pub fn nul() -> Self {
        Self::rule("text must not contain NUL")
    }

    /// Something that is no text.
    pub fn not_a_string() -> Self {
        Self::new("string_type", "Input should be a valid string")
    }

    /// Bytes, or half of a surrogate pair, that make no text.
    pub fn not_unicode() -> Self {
        Self::new("string_unicode", "Input should be a valid string, unable to parse raw data as a unicode string")
    }

    /// A text of fewer than so many characters.
    pub fn too_short(least: usize) -> Self {
        let msg = format!("String should have at least {least} character{}", plural(least));
        Self::new("string_too_short", msg).limit("min_length", least as i64)
    }

    /// A text of more than so many characters.
    pub fn too_long(most: usize) -> Self {
        let msg = format!("String should have at most {most} character{}", plural(most));
        Self::new("string_too_long", msg).limit("max_length", most as i64)
    }

    /// A field that is not there.
    pub fn missing() -> Self {
        Self::new("missing", "Field required")
    }

    /// A text that is no number.
    pub fn not_a_number() -> Self {
        Self::new("float_parsing", "Input should be a valid number, unable to parse string as a number")
    }

    /// Not a number, or an infinite one.
    pub fn not_finite() -> Self {
        Self::new("finite_number", "Input should be a finite number")
    }

    /// A number below the least.
    pub fn below(least: i64) -> Self {
        let msg = format!("Input should be greater than or equal to {least}");
        Self::new("greater_than_equal", msg).limit("ge", least)
    }

    /// A number above the most.
    pub fn above(most: i64) -> Self {
        let msg = format!("Input should be less than or equal to {most}");
        Self::new("less_than_equal", msg).limit("le", most)
    }

    /// Places it in `part` of the request as a whole.
    pub fn in_whole(self, part: &'static str, input: Option<&str>) -> ValidationError {
        self.placed(vec![Step::Name(part.into())], input)
    }

    /// Places it at the field `name` of `part`.
    pub fn at(self, part: &'static str, name: &str, input: Option<&str>) -> ValidationError {
        self.placed(vec![Step::Name(part.into()), Step::Name(name.to_owned().into())], input)
    }

    /// Places it at the element `index` of a list, or at the field `name` of that element.
    fn at_element(self, index: usize, name: Option<&str>, input: Option<&str>) -> ValidationError {
        let mut loc = vec![Step::Name("body".into()), Step::Index(index)];
        loc.extend(name.map(|name| Step::Name(name.to_owned().into())));
        self.placed(loc, input)
    }

    fn placed(self, loc: Vec<Step>, input: Option<&str>) -> ValidationError {
        // Half of a surrogate pair, `1e400` and deep nests are JSON, but most readers stop at them: not to be repeated.
        let readable = |raw: &&str| serde_json::from_str::<serde_json::Value>(raw).is_ok();
        let input = input.filter(|raw| raw.len() <= LONGEST_ECHO).filter(readable);
        let input = input.and_then(|raw| RawValue::from_string(raw.into()).ok());
        ValidationError { loc, msg: self.msg, kind: self.kind, input, ctx: self.ctx }
    }
}

impl std::fmt::Display for ValidationError {
    /// For the log: where, and which kind, but not what came in.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for step in &self.loc {
            match step {
                Step::Name(name) => write!(f, "{name} ")?,
                Step::Index(index) => write!(f, "{index} ")?,
            }
        }
        f.write_str(self.kind)
    }
}

impl ValidationError {
    /// How `openapi.json` describes it.
    pub fn schema() -> MetaSchema {
        let inline = |schema| MetaSchemaRef::Inline(Box::new(schema));
        let step = MetaSchema {
            any_of: vec![inline(MetaSchema::new("string")), inline(MetaSchema::new("integer"))],
            ..MetaSchema::ANY
        };
        MetaSchema {
            required: vec!["loc", "msg", "type"],
            properties: vec![
                (
                    "loc",
                    inline(MetaSchema {
                        items: Some(Box::new(inline(step))),
                        example: Some(serde_json::json!(["body", "amount"])),
                        ..MetaSchema::new("array")
                    }),
                ),
                ("msg", inline(MetaSchema { example: Some("Field required".into()), ..MetaSchema::new("string") })),
                ("type", inline(MetaSchema { example: Some("missing".into()), ..MetaSchema::new("string") })),
                ("input", inline(MetaSchema { description: Some("What came in."), ..MetaSchema::ANY })),
            ],
            ..MetaSchema::new("object")
        }
    }
}

fn plural(number: usize) -> &'static str {
    if number == 1 { "" } else { "s" }
}

/// `{"gt": 0}`: a map.
fn serialize_ctx<S: Serializer>(ctx: &[(&'static str, Ctx)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(ctx.iter().map(|(name, value)| (name, value)))
}
