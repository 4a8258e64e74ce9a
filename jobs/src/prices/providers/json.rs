//! Reads JSON rows with every number as its original text, so that no price passes through a float.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::ParsedResponse;

/// A value that is parsed later, if at all.
pub type Field<'a> = &'a RawValue;

/// Parses a response body. A body that is not JSON of this form is [`ParsedResponse::Transient`], such as an HTML page
/// or a truncated body.
pub fn parse<'a, T: Deserialize<'a>, V>(body: &'a str) -> Result<T, ParsedResponse<V>> {
    // Only the kind and place of the error are kept: its text could repeat what was sent.
    serde_json::from_str(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "ends too early",
            serde_json::error::Category::Data => "has an unexpected form",
            _ => "is not JSON",
        };
        ParsedResponse::Transient(format!("response {what} (line {}, column {})", error.line(), error.column()))
    })
}

/// The text of a number, or of a string that contains one. The text of any other value is not a valid number.
pub fn text(field: Field<'_>) -> &str {
    let text = field.get();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// The first fields of a row. `None` when it has fewer fields, or is not an array.
pub fn fields<const N: usize>(row: Field<'_>) -> Option<[&str; N]> {
    let fields: Vec<&RawValue> = serde_json::from_str(row.get()).ok()?;
    let texts: Vec<&str> = fields.into_iter().take(N).map(text).collect();
    texts.try_into().ok()
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
            let failure = parse::<Vec<Field<'_>>, ()>(body).expect_err(body);
            let ParsedResponse::Transient(reason) = failure else { panic!("{failure:?}") };
            assert!(reason.contains(what) && !reason.contains("secret"), "{reason}");
        }
    }
}
