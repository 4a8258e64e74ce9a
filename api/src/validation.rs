//! What is wrong with an input, in Pydantic v2's words: clients match on them.

mod body;
mod query;

use std::borrow::Cow;

pub use body::{Body, Fields, FromBody};
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
pub use query::{Limit, Query, QueryValue, Skip, Wait};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Longer inputs are not repeated in the answer: it would only be as large as the request, once for every error.
const LONGEST_ECHO: usize = 4096;

/// One failing field.
#[derive(Debug, Clone, Serialize)]
pub struct Invalid {
    loc: Loc,
    msg: Cow<'static, str>,
    #[serde(rename = "type")]
    kind: &'static str,
    input: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_ctx")]
    ctx: Option<(&'static str, i64)>,
}

/// Where the field is: `["body"]` as a whole, or `["body", "amount"]`.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum Loc {
    Whole([&'static str; 1]),
    Field(&'static str, String),
}

/// What is wrong with a value, before it is known where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    kind: &'static str,
    msg: Cow<'static, str>,
    ctx: Option<(&'static str, i64)>,
}

impl Wrong {
    /// One of Pydantic's own types with its message.
    pub fn new(kind: &'static str, msg: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, msg: msg.into(), ctx: None }
    }

    /// The limit that was passed, by its name in Pydantic.
    pub fn limit(mut self, name: &'static str, limit: i64) -> Self {
        self.ctx = Some((name, limit));
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

    /// A field that is not there.
    pub fn missing() -> Self {
        Self::new("missing", "Field required")
    }

    /// Places it in `part` of the request as a whole.
    pub fn in_whole(self, part: &'static str, input: Option<&str>) -> Invalid {
        self.placed(Loc::Whole([part]), input)
    }

    /// Places it at the field `name` of `part`.
    pub fn at(self, part: &'static str, name: &str, input: Option<&str>) -> Invalid {
        self.placed(Loc::Field(part, name.into()), input)
    }

    fn placed(self, loc: Loc, input: Option<&str>) -> Invalid {
        // Half of a surrogate pair, `1e400` and deep nests are JSON, but most readers stop at them: not to be repeated.
        let readable = |raw: &&str| serde_json::from_str::<serde_json::Value>(raw).is_ok();
        let input = input.filter(|raw| raw.len() <= LONGEST_ECHO).filter(readable);
        let input = input.and_then(|raw| RawValue::from_string(raw.into()).ok());
        Invalid { loc, msg: self.msg, kind: self.kind, input, ctx: self.ctx }
    }
}

impl Invalid {
    /// How `openapi.json` describes it.
    pub fn schema() -> MetaSchema {
        let inline = |schema| MetaSchemaRef::Inline(Box::new(schema));
        MetaSchema {
            required: vec!["loc", "msg", "type"],
            properties: vec![
                (
                    "loc",
                    inline(MetaSchema {
                        items: Some(Box::new(inline(MetaSchema::new("string")))),
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

/// `{"gt": 0}`: a map of the one limit.
#[allow(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn serialize_ctx<S: Serializer>(ctx: &Option<(&'static str, i64)>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(ctx.iter().copied())
}
