//! Input validation: readers of bodies and query parameters, each with its schema.

mod body;
mod cursor;
mod number;
mod query;
mod request;
mod value;

pub use body::{Body, Fields, FromJsonBody, FromJsonObject, List, parse_string};
pub use cursor::Cursor;
pub use number::{any_of, decimal_from_json, integer_from_text, integer_schema, number_from_json, whole_from_text};
pub use query::{Limit, Query, QueryValue, Skip, Wait};
pub(crate) use request::request;
pub use request::{Field, object_schema};
pub use value::{Integer, StrippedText, Text, VISIBLE_PATTERN, Value, VisibleText, parse_choice, text_schema};

pub use crate::validation_error::{FieldError, ValidationError};

use crate::problem::Problem;

/// Rejects a request for which errors have been recorded.
///
/// # Errors
/// 422 with all of them.
pub fn require_no_errors(errors: Vec<ValidationError>) -> Result<(), Problem> {
    if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors)) }
}
