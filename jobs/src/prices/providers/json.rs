//! Reads JSON rows with every number as its original text, so that no price passes through a float.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{AttemptError, Parsed};
use crate::prices::normalise::{CandleSet, RawCandle, RejectReason, Window};
use runtime::clients::object::Object;

/// A value that is parsed later, if at all.
pub(super) type Field<'a> = &'a RawValue;

/// Parses a response body. A body that is not JSON of this form is [`AttemptError::Transient`], such as an HTML page or a
/// truncated body.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a str) -> Parsed<T> {
    // Only the kind and place of the error are kept: its text could repeat what was sent.
    serde_json::from_str(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "ends too early",
            serde_json::error::Category::Data => "has an unexpected form",
            _ => "is not JSON",
        };
        AttemptError::Transient(format!("response {what} (line {}, column {})", error.line(), error.column()))
    })
}

/// Parses a response body that is an object. See [`parse`].
pub(super) fn object<'a, T: Deserialize<'a>>(body: &'a str) -> Parsed<T> {
    parse(body).map(|Object(object)| object)
}

/// The text of a number, or of a string that contains one. The text of any other value is not a valid number.
pub(super) fn text(field: Field<'_>) -> &str {
    let text = field.get();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// The first fields of a row. `None` when it has fewer fields, or is not an array.
pub(super) fn fields<const N: usize>(row: Field<'_>) -> Option<[&str; N]> {
    let fields: Vec<&RawValue> = serde_json::from_str(row.get()).ok()?;
    let texts: Vec<&str> = fields.into_iter().take(N).map(text).collect();
    texts.try_into().ok()
}

/// The rows of a page as candles. `read` picks the fields of a row; it leaves out a row with `None`. A row with fewer
/// fields is rejected.
pub(super) fn candles<const N: usize>(
    rows: &[Field<'_>],
    page: Window,
    read: impl for<'a> Fn([&'a str; N]) -> Option<RawCandle<'a>>,
) -> CandleSet {
    let mut candle_set = CandleSet::new(page);
    for row in rows {
        match fields(row) {
            Some(fields) => read(fields).into_iter().for_each(|candle| candle_set.add_row(candle)),
            None => candle_set.reject(RejectReason::Shape, row.get()),
        }
    }
    candle_set
}

/// The entries of a list that are objects of this form. The others are ignored.
pub(super) fn entries<'a, T: Deserialize<'a>>(list: impl IntoIterator<Item = Field<'a>>) -> impl Iterator<Item = T> {
    list.into_iter().filter_map(|entry| serde_json::from_str(entry.get()).ok()).map(|Object(entry)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_text() {
        let row: Field<'_> =
            serde_json::from_str(r#"[1,"2.50",0.1000000000000000055511151231257827,null,[5]]"#).expect("JSON");
        assert_eq!(fields(row), Some(["1", "2.50", "0.1000000000000000055511151231257827"]));
        assert_eq!(fields(row), Some(["1", "2.50", "0.1000000000000000055511151231257827", "null", "[5]"]));
        assert_eq!(fields::<6>(row), None);
        for other in ["null", "{}", "7", "\"[1,2]\""] {
            assert_eq!(fields::<1>(serde_json::from_str(other).expect("JSON")), None, "{other}");
        }
    }

    #[test]
    fn errors_do_not_repeat_the_response() {
        for (body, what) in [("<html>secret", "is not JSON"), ("[\"secret", "ends too early"), ("\"secret\"", "form")] {
            let failure = parse::<Vec<Field<'_>>>(body).expect_err(body);
            let AttemptError::Transient(reason) = failure else { panic!("{failure:?}") };
            assert!(reason.contains(what) && !reason.contains("secret"), "{reason}");
        }
    }
}
