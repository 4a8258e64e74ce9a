//! Input validation: readers of bodies and query parameters, each with its schema.

mod body;
mod number;
mod query;
mod request;
mod value;

pub use body::{Body, Fields, FromJsonBody, FromJsonObject, List, parse_string};
pub use number::{decimal_from_json, integer_schema, number_from_json, whole_from_text};
pub use query::{AllValid, Query, QueryValue, Wait};
pub(crate) use request::request;
pub use request::{Field, object_schema};
pub use value::{
    Choice, FirstOr, Flag, Integer, OneOf, StrippedText, Text, VISIBLE_PATTERN, Value, VisibleText, list_names,
};

pub use crate::validation_error::{FieldError, ValidationError};
