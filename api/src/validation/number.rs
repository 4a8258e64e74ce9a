//! Numbers in Pydantic's lax mode and never through a float: one reader for bodies, queries and paths.

use std::borrow::Cow;

use jobs::decimal::{Decimal, Whole};
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};

use super::{FieldError, body::string};

/// Longer texts are no integers to Pydantic: Python's own limit.
const MOST_DIGITS: usize = 4300;

/// Reads the text of a whole number: a sign, digits with single underscores between them, and zeros after the point.
pub fn integer_in_text(text: &str, least: i64, most: i64) -> Result<i64, FieldError> {
    within(whole_in_text(text)?, least, most)
}

/// Reads the raw JSON of a whole number: `5`, `5.0`, `"5"`, `" 5 "` or `true`.
pub fn integer_in_json(raw: &str, least: i64, most: i64) -> Result<i64, FieldError> {
    let whole = match string(raw) {
        Some(text) => whole_in_text(&text?)?,
        None => match raw {
            "true" => Whole::Number(1),
            "false" => Whole::Number(0),
            _ if is_number(raw) => whole_in_json(raw)?,
            _ => return Err(FieldError::new("int_type", "Input should be a valid integer")),
        },
    };
    within(whole, least, most)
}

/// A whole number of any size, from its text.
///
/// # Errors
/// When it is no whole number.
pub fn whole_in_text(text: &str) -> Result<Whole, FieldError> {
    let unread =
        || FieldError::new("int_parsing", "Input should be a valid integer, unable to parse string as an integer");
    let text = text.trim();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, places) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    // After a zero in front, Pydantic takes any number of zeros and underscores.
    let significant = if whole.starts_with('0') { whole.trim_start_matches(['0', '_']) } else { whole };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_zero = significant.is_empty() && whole.ends_with('0');
    if !(is_zero || significant.split('_').all(digits)) || places.is_empty() || places.bytes().any(|byte| byte != b'0')
    {
        return Err(unread());
    }
    if significant.len() > MOST_DIGITS {
        let msg = "Unable to parse input string as an integer, exceeded maximum size";
        return Err(FieldError::new("int_parsing_size", msg));
    }
    let (sign, beyond) = if text.starts_with('-') { ("-", Whole::BelowAll) } else { ("", Whole::AboveAll) };
    Ok(format!("{sign}0{}", significant.replace('_', "")).parse().map_or(beyond, Whole::Number))
}

/// A whole number of any size, from a JSON number with or without an exponent.
fn whole_in_json(raw: &str) -> Result<Whole, FieldError> {
    let (_, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, ""));
    let whole = raw.parse::<Decimal>().map(|decimal| decimal.whole());
    // An exponent that is no number here is as good as infinite, either way.
    let beyond = if raw.starts_with('-') { Whole::BelowAll } else { Whole::AboveAll };
    let whole = whole.unwrap_or(if exponent.starts_with('-') { Err(jobs::decimal::Fraction) } else { Ok(beyond) });
    whole.map_err(|_| {
        FieldError::new("int_from_float", "Input should be a valid integer, got a number with a fractional part")
    })
}

fn within(whole: Whole, least: i64, most: i64) -> Result<i64, FieldError> {
    match whole {
        Whole::BelowAll => Err(FieldError::below(least)),
        Whole::AboveAll => Err(FieldError::above(most)),
        Whole::Number(number) if number < least => Err(FieldError::below(least)),
        Whole::Number(number) if number > most => Err(FieldError::above(most)),
        Whole::Number(number) => Ok(number),
    }
}

/// Reads the raw JSON of a number, in the words that Pydantic has for a float but exact: `read` gets its text without
/// outer blanks and underscores, `1` for true and `0` for false.
pub fn number_in_json<T>(raw: &str, read: impl FnOnce(&str) -> Result<T, FieldError>) -> Result<T, FieldError> {
    match raw {
        "true" => read("1"),
        "false" => read("0"),
        _ => match text_of_number(raw)? {
            Some(text) => number_in_text(&text, read),
            None => Err(FieldError::new("float_type", "Input should be a valid number")),
        },
    }
}

/// Reads the text of a number. `read` gets it without outer blanks and underscores, and never empty.
pub fn number_in_text<T>(text: &str, read: impl FnOnce(&str) -> Result<T, FieldError>) -> Result<T, FieldError> {
    let text = text.trim();
    let misplaced = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    if text.is_empty() || misplaced {
        return Err(FieldError::not_a_number());
    }
    read(&text.replace('_', ""))
}

/// Reads the raw JSON of a decimal: `read` gets its text without outer blanks and, as Python's `Decimal` reads it, without
/// underscores.
pub fn decimal_in_json<T>(raw: &str, read: impl FnOnce(&str) -> Result<T, FieldError>) -> Result<T, FieldError> {
    let text = text_of_number(raw)?.ok_or_else(|| {
        FieldError::new("decimal_type", "Decimal input should be an integer, float, string or Decimal object")
    })?;
    read(&text.trim().replace('_', ""))
}

/// The text of a JSON number or string, and `None` when it is neither.
fn text_of_number(raw: &str) -> Result<Option<Cow<'_, str>>, FieldError> {
    match string(raw) {
        Some(text) => text.map(Some),
        None => Ok(is_number(raw).then_some(Cow::Borrowed(raw))),
    }
}

fn is_number(raw: &str) -> bool {
    raw.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// How `openapi.json` describes a whole number in a query or a path.
pub fn integer_schema(least: i64, most: i64) -> MetaSchema {
    MetaSchema { minimum: Some(least as f64), maximum: Some(most as f64), ..MetaSchema::new("integer") }
}

/// How `openapi.json` describes a whole number in a body, with all that the lax mode takes.
pub fn lax_integer_schema(least: i64, most: i64) -> MetaSchema {
    let text = MetaSchema { pattern: Some(integer_pattern(least, most)), ..MetaSchema::new("string") };
    any_of([integer_schema(least, most), text, MetaSchema::new("boolean")])
}

/// A value that comes in several forms.
pub fn any_of(forms: impl IntoIterator<Item = MetaSchema>) -> MetaSchema {
    let inline = |schema| MetaSchemaRef::Inline(Box::new(schema));
    MetaSchema { any_of: forms.into_iter().map(inline).collect(), ..MetaSchema::ANY }
}

/// A pattern of the texts that are whole numbers from 0, or from `-most` where `least` is negative, up to `most`.
fn integer_pattern(least: i64, most: i64) -> String {
    let most = most.to_string();
    let mut forms = vec!["0".to_owned()];
    if most.len() > 1 {
        forms.push(format!("[1-9][0-9]{{0,{}}}", most.len() - 2));
    }
    // Of the same length: the digits of `most` up to a smaller one, and then any.
    for (at, digit) in most.char_indices() {
        let (first, rest) = (if at == 0 { '1' } else { '0' }, most.len() - at - 1);
        if let Some(smaller) = (first..digit).next_back() {
            forms.push(format!("{}[{first}-{smaller}][0-9]{{{rest}}}", &most[..at]));
        }
    }
    forms.push(most);
    let numbers = forms.join("|");
    let signed = if least < 0 { format!("[+-]?0*({numbers})") } else { format!("(\\+?0*({numbers})|-0+)") };
    format!("^\\s*{signed}(\\.0+)?\\s*$")
}

#[cfg(test)]
mod tests;
