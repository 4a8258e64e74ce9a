//! Rows of JSON, every number as the text that it came as: no price passes through a float.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::caller::Verdict;

/// A value that is read later, if at all.
pub type Field<'a> = &'a RawValue;

/// Reads an answer; one that is no JSON of this form is broken, like a page of HTML or half of an answer.
pub fn read<'a, T: Deserialize<'a>, V>(body: &'a str) -> Result<T, Verdict<V>> {
    // serde's words name places and types, and nothing of what was sent.
    serde_json::from_str(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "ends too early",
            serde_json::error::Category::Data => "has another form",
            _ => "is no JSON",
        };
        Verdict::Broken(format!("its answer {what} (line {}, column {})", error.line(), error.column()))
    })
}

/// The text of a number, or of a string that holds one. Anything else is no number, and is found to be none.
pub fn text(field: Field<'_>) -> &str {
    let text = field.get();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// The first fields of a row, or `None` when it has fewer or is none.
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
    fn what_was_sent_is_not_repeated() {
        for (body, what) in [("<html>secret", "is no JSON"), ("[\"secret", "ends too early"), ("\"secret\"", "form")] {
            let verdict = read::<Vec<Field<'_>>, ()>(body).expect_err(body);
            let Verdict::Broken(why) = verdict else { panic!("{verdict:?}") };
            assert!(why.contains(what) && !why.contains("secret"), "{why}");
        }
    }
}
