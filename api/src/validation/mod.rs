//! Input validation: readers of bodies and query parameters, each with its schema.

mod all_valid;
mod body;
mod moment;
mod number;
mod query;
mod request;
mod text;
mod value;

pub(crate) use all_valid::AllValid;
pub(crate) use body::{Body, Fields, FromJsonBody, FromJsonObject, InvalidRow, List, Row, RowType, Rows};
pub(crate) use moment::Moment;
pub(crate) use number::{decimal_from_json, integer_schema, number_from_json, whole_from_text};
pub(crate) use query::{NeverDefault, Query, QueryValue, Wait};
pub(crate) use request::{Field, object_schema, request};
pub(crate) use text::parse_string;
pub(crate) use value::{
    Choice, FirstOr, Flag, Integer, OneOf, StrippedText, Text, VISIBLE_PATTERN, Value, VisibleText, list_names,
    parse_uuid,
};

pub(crate) use crate::validation_error::{FieldError, ValidationError};
