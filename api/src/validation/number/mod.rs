//! Number parsers in Pydantic's lax mode, shared by bodies, queries and paths. No value passes through a float.

use std::borrow::Cow;

use jobs::decimal::{Decimal, Whole};
use poem_openapi::registry::MetaSchema;

use super::{FieldError, text::parse_string};
use crate::schema::any_of;

/// The largest number of digits that Pydantic accepts in an integer, which is Python's limit.
const MAX_DIGITS: usize = 4300;

/// Parses the text of an integer within a range: a sign, digits with single underscores between them, zeros after the
/// point.
pub(super) fn integer_from_text(text: &str, min: i64, max: i64) -> Result<i64, FieldError> {
    check_range(whole_from_text(text)?, min, max)
}

/// Parses the raw JSON of an integer within a range: `5`, `5.0`, `"5"`, `" 5 "` or `true`.
pub(super) fn integer_from_json(raw: &str, min: i64, max: i64) -> Result<i64, FieldError> {
    let whole = match parse_string(raw) {
        Some(text) => whole_from_text(&text?)?,
        None => match raw {
            "true" => Whole::Number(1),
            "false" => Whole::Number(0),
            _ if is_number(raw) => whole_from_json(raw)?,
            _ => return Err(FieldError::new("int_type", "Input should be a valid integer")),
        },
    };
    check_range(whole, min, max)
}

/// Parses the text of an integer of any size.
///
/// # Errors
/// The text is not an integer.
pub(crate) fn whole_from_text(text: &str) -> Result<Whole, FieldError> {
    let not_an_integer =
        || FieldError::new("int_parsing", "Input should be a valid integer, unable to parse string as an integer");
    let text = text.trim();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, places) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    // After a leading zero, Pydantic accepts any number of zeros and underscores.
    let significant = if whole.starts_with('0') { whole.trim_start_matches(['0', '_']) } else { whole };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_zero = significant.is_empty() && whole.ends_with('0');
    if !(is_zero || significant.split('_').all(digits)) || places.is_empty() || places.bytes().any(|byte| byte != b'0')
    {
        return Err(not_an_integer());
    }
    if significant.len() > MAX_DIGITS {
        let msg = "Unable to parse input string as an integer, exceeded maximum size";
        return Err(FieldError::new("int_parsing_size", msg));
    }
    let (sign, beyond) = if text.starts_with('-') { ("-", Whole::BelowAll) } else { ("", Whole::AboveAll) };
    Ok(format!("{sign}0{}", significant.replace('_', "")).parse().map_or(beyond, Whole::Number))
}

/// Parses a JSON number, with or without an exponent, as an integer of any size.
fn whole_from_json(raw: &str) -> Result<Whole, FieldError> {
    raw.parse::<Decimal>().ok().and_then(|decimal| decimal.whole().ok()).ok_or_else(|| {
        FieldError::new("int_from_float", "Input should be a valid integer, got a number with a fractional part")
    })
}

fn check_range(whole: Whole, min: i64, max: i64) -> Result<i64, FieldError> {
    match whole {
        Whole::BelowAll => Err(FieldError::below(min)),
        Whole::AboveAll => Err(FieldError::above(max)),
        Whole::Number(number) if number < min => Err(FieldError::below(min)),
        Whole::Number(number) if number > max => Err(FieldError::above(max)),
        Whole::Number(number) => Ok(number),
    }
}

/// Parses the raw JSON of a number exactly, with Pydantic's error texts for a float. `read` gets the text without outer
/// blanks and underscores; it gets `1` for true and `0` for false.
pub(crate) fn number_from_json<T>(
    raw: &str,
    read: impl FnOnce(&str) -> Result<T, FieldError>,
) -> Result<T, FieldError> {
    match raw {
        "true" => read("1"),
        "false" => read("0"),
        _ => match number_text(raw)? {
            Some(text) => number_from_text(&text, read),
            None => Err(FieldError::new("float_type", "Input should be a valid number")),
        },
    }
}

/// Parses the text of a number. `read` gets it without outer blanks and underscores; it is never empty.
pub(super) fn number_from_text<T>(
    text: &str,
    read: impl FnOnce(&str) -> Result<T, FieldError>,
) -> Result<T, FieldError> {
    let text = text.trim();
    let has_misplaced_underscore = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    if text.is_empty() || has_misplaced_underscore {
        return Err(FieldError::not_a_number());
    }
    read(&text.replace('_', ""))
}

/// Parses the raw JSON of a decimal. `read` gets the text without outer blanks and without underscores, which Python's
/// `Decimal` ignores too.
pub(crate) fn decimal_from_json<T>(
    raw: &str,
    read: impl FnOnce(&str) -> Result<T, FieldError>,
) -> Result<T, FieldError> {
    let text = number_text(raw)?.ok_or_else(|| {
        FieldError::new("decimal_type", "Decimal input should be an integer, float, string or Decimal object")
    })?;
    let text = text.trim();
    if text.contains('_') { read(&text.replace('_', "")) } else { read(text) }
}

/// The text of a JSON number or string; `None` if it is neither.
fn number_text(raw: &str) -> Result<Option<Cow<'_, str>>, FieldError> {
    match parse_string(raw) {
        Some(text) => text.map(Some),
        None => Ok(is_number(raw).then_some(Cow::Borrowed(raw))),
    }
}

fn is_number(raw: &str) -> bool {
    raw.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// The schema in `openapi.json` of an integer in a query or path.
pub(crate) fn integer_schema(min: i64, max: i64) -> MetaSchema {
    MetaSchema { minimum: Some(min as f64), maximum: Some(max as f64), ..MetaSchema::new("integer") }
}

/// The schema in `openapi.json` of an integer in a body, with every form that the lax mode accepts.
pub(super) fn lax_integer_schema(min: i64, max: i64) -> MetaSchema {
    let text = MetaSchema { pattern: Some(integer_pattern(min, max)), ..MetaSchema::new("string") };
    any_of([integer_schema(min, max), text, MetaSchema::new("boolean")])
}

/// A regular expression for the texts of integers up to `max`, from 0, or from `-max` if `min` is negative.
fn integer_pattern(min: i64, max: i64) -> String {
    // After a leading zero, any number of zeros and underscores may follow.
    let numbers = format!("(0[0_]*)?({})", integer_forms(max).join("|"));
    let signed = if min < 0 { format!("[+-]?{numbers}") } else { format!("(\\+?{numbers}|-(0[0_]*)?0)") };
    format!("^\\s*{signed}(\\.0+)?\\s*$")
}

/// Regular expressions that together match the numbers up to `max`, with single underscores between their digits.
fn integer_forms(max: i64) -> Vec<String> {
    let max = max.to_string();
    let mut forms = vec!["0".to_owned()];
    if max.len() > 1 {
        forms.push(format!("[1-9](_?[0-9]){{0,{}}}", max.len() - 2));
    }
    // Numbers as long as `max`: a common prefix, then a smaller digit, then any digits.
    let mut prefix = String::new();
    for (at, digit) in max.char_indices() {
        let (first, rest) = (if at == 0 { '1' } else { '0' }, max.len() - at - 1);
        if let Some(smaller) = (first..digit).next_back() {
            forms.push(format!("{prefix}[{first}-{smaller}](_?[0-9]){{{rest}}}"));
        }
        prefix.push(digit);
        if rest > 0 {
            prefix.push_str("_?");
        }
    }
    forms.push(prefix);
    forms
}

#[cfg(test)]
mod tests;
