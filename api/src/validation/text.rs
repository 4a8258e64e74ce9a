//! Parsers of JSON strings.

use std::{borrow::Cow, ops::RangeInclusive};

use serde::Deserialize;

use super::FieldError;

/// A string that borrows from its JSON unless it has escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Parses a JSON string; `None` if the raw JSON is not a string.
pub(crate) fn parse_string(raw: &str) -> Option<Result<Cow<'_, str>, FieldError>> {
    if !raw.starts_with('"') {
        return None;
    }
    Some(serde_json::from_str::<Text<'_>>(raw).map(|Text(text)| text).map_err(|_| {
        // The raw text is well-formed JSON, so the only possible error is half of a surrogate pair.
        FieldError::not_unicode()
    }))
}

/// Parses a JSON string whose number of characters must be within `length`.
pub(crate) fn parse_text(raw: &str, length: RangeInclusive<usize>) -> Result<String, FieldError> {
    let text = parse_string(raw).ok_or_else(FieldError::not_a_string)??;
    let (min, max) = length.into_inner();
    // The number of bytes is an upper bound of the number of characters, so most texts need no counting.
    let count = if text.len() < min || text.len() > max || min > 1 { text.chars().count() } else { min.max(1) };
    if text.is_empty() && min > 0 || count < min {
        return Err(FieldError::too_short(min));
    }
    if count > max {
        return Err(FieldError::too_long(max));
    }
    if text.contains('\0') { Err(FieldError::nul()) } else { Ok(text.into_owned()) }
}
