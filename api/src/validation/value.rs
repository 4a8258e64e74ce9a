//! Field types of JSON bodies. Each type has its reader and its schema in one place, so that they cannot differ.

use std::ops::RangeInclusive;

use jobs::text::is_blank;
use poem_openapi::registry::MetaSchema;
use uuid::Uuid;

use super::{
    FieldError,
    body::{self, parse_string},
    number,
};

/// The pattern of texts that can be stored: without NUL, which PostgreSQL cannot store.
pub const NO_NUL_PATTERN: &str = "^[^\\x00]*$";

/// The type of a field in a body.
pub trait Value: Sized {
    /// Whether a body without the field is rejected.
    const REQUIRED: bool = true;
    /// Whether the value is secret, so that no response may echo it.
    const SECRET: bool = false;

    /// The schema in `openapi.json`: exactly what [`Self::read`] accepts.
    fn schema() -> MetaSchema;

    /// Reads the value from its raw JSON.
    ///
    /// # Errors
    /// The value is invalid; the error has Pydantic's type and message.
    fn read(raw: &str) -> Result<Self, FieldError>;

    /// The value of an absent field; `None` if the field is required.
    fn when_absent() -> Option<Self> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    const REQUIRED: bool = false;
    const SECRET: bool = T::SECRET;

    fn schema() -> MetaSchema {
        MetaSchema { nullable: true, ..T::schema() }
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        if raw == "null" { Ok(None) } else { T::read(raw).map(Some) }
    }

    fn when_absent() -> Option<Self> {
        Some(None)
    }
}

/// A text of `MIN` to `MAX` characters without NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<const MIN: usize, const MAX: usize>(pub String);

impl<const MIN: usize, const MAX: usize> Value for Text<MIN, MAX> {
    fn schema() -> MetaSchema {
        text_schema(MIN..=MAX)
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        body::parse_text(raw, MIN..=MAX).map(Self)
    }
}

/// A [`Text`] with at least one visible character, for names: blanks and invisible characters alone are rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisibleText<const MIN: usize, const MAX: usize>(pub String);

impl<const MIN: usize, const MAX: usize> Value for VisibleText<MIN, MAX> {
    fn schema() -> MetaSchema {
        MetaSchema { pattern: Some(VISIBLE_PATTERN.into()), ..text_schema(MIN..=MAX) }
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        let text = body::parse_text(raw, MIN..=MAX)?;
        if is_blank(&text) { Err(FieldError::too_short(1)) } else { Ok(Self(text)) }
    }
}

/// The pattern of texts that are not blank and have no NUL. It treats zero-width characters as visible: Unicode lists
/// too many of them for the regex engines of client generators.
pub const VISIBLE_PATTERN: &str = "^[^\\x00]*[^\\x00\\s][^\\x00]*$";

/// The schema in `openapi.json` of a text with a number of characters within `length`.
pub fn text_schema(length: RangeInclusive<usize>) -> MetaSchema {
    let (min, max) = length.into_inner();
    MetaSchema {
        min_length: (min > 0).then_some(min),
        max_length: Some(max),
        pattern: Some(NO_NUL_PATTERN.into()),
        ..MetaSchema::new("string")
    }
}

/// An integer from `MIN` to `MAX`, read in lax mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Integer<const MIN: i64, const MAX: i64>(pub i64);

impl<const MIN: i64, const MAX: i64> Value for Integer<MIN, MAX> {
    fn schema() -> MetaSchema {
        number::lax_integer_schema(MIN, MAX)
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        number::integer_from_json(raw, MIN, MAX).map(Self)
    }
}

/// A text without its outer blanks, which must not be empty. It may contain NUL, so it is not for texts that are
/// stored: those are a [`Text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrippedText(pub String);

impl Value for StrippedText {
    fn schema() -> MetaSchema {
        MetaSchema { pattern: Some("\\S".into()), ..MetaSchema::new("string") }
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        let text = parse_string(raw).ok_or_else(FieldError::not_a_string)??;
        match text.trim() {
            "" => Err(FieldError::too_short(1)),
            text => Ok(Self(text.to_owned())),
        }
    }
}

impl Value for Uuid {
    fn schema() -> MetaSchema {
        // The parser also accepts forms other than the standard's.
        let plain = "[0-9a-fA-F]{32}";
        let grouped = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
        let pattern = format!("^({plain}|\\{{{grouped}\\}}|urn:uuid:{grouped})$");
        let other = MetaSchema { pattern: Some(pattern), ..MetaSchema::new("string") };
        number::any_of([MetaSchema::new_with_format("string", "uuid"), other])
    }

    /// Pydantic uses the same parser, so the parser's messages are those of Pydantic 2.14 (earlier ones were longer).
    fn read(raw: &str) -> Result<Self, FieldError> {
        let text = parse_string(raw)
            .ok_or_else(|| FieldError::new("uuid_type", "UUID input should be a string, bytes or UUID object"))??;
        Self::parse_str(&text).map_err(|error| {
            let reason = error.to_string();
            FieldError::new("uuid_parsing", format!("Input should be a valid UUID, {reason}")).error(reason)
        })
    }
}

/// Parses an enum value; it must match exactly. `expected` lists the values in Pydantic's form: `'A', 'B' or 'C'`.
pub fn parse_choice<T>(
    raw: &str,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, FieldError> {
    let error = || FieldError::new("enum", format!("Input should be {expected}")).expected(expected);
    parse_string(raw).and_then(Result::ok).and_then(|text| parse(&text)).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T: Value + std::fmt::Debug>(raw: &str) -> &'static str {
        T::read(raw).map_or_else(|error| error.kind, |_| "ok")
    }

    #[test]
    fn text_length_counts_characters_instead_of_bytes() {
        let quoted = |text: &str| format!("\"{text}\"");
        assert_eq!(kind::<Text<1, 255>>(&quoted(&"é".repeat(255))), "ok");
        assert_eq!(kind::<Text<1, 255>>(&quoted(&"é".repeat(256))), "string_too_long");
        assert_eq!(kind::<Text<1, 255>>(&quoted(&"a".repeat(256))), "string_too_long");
        assert_eq!(kind::<Text<2, 3>>("\"é\""), "string_too_short");
        assert_eq!(kind::<Text<0, 3>>("\"\""), "ok");
        assert_eq!(kind::<Text<1, 255>>("7"), "string_type");
        assert_eq!(kind::<Text<1, 255>>("null"), "string_type");
        assert_eq!(kind::<Text<1, 255>>(r#""a\u0000b""#), "value_error");
        assert_eq!(kind::<Text<1, 255>>(r#""\ud800""#), "string_unicode");
        assert_eq!(Text::<1, 2>::read(r#""\u00e9\ud83d\ude00""#), Ok(Text("é😀".into())));
    }

    #[test]
    fn an_optional_value_may_be_absent_or_null() {
        assert_eq!(Option::<Integer<0, 9>>::read("null"), Ok(None));
        assert_eq!(Option::<Integer<0, 9>>::when_absent(), Some(None));
        assert_eq!(Option::<Integer<0, 9>>::read("\" 7 \""), Ok(Some(Integer(7))));
        assert_eq!(kind::<Option<Integer<0, 9>>>("10"), "less_than_equal");
        assert!(Integer::<0, 9>::when_absent().is_none());
    }

    #[test]
    fn stripped_text_drops_outer_blanks() {
        assert_eq!(StrippedText::read("\" MRM\\n\""), Ok(StrippedText("MRM".into())));
        assert_eq!(kind::<StrippedText>("\" \""), "string_too_short");
        assert_eq!(kind::<StrippedText>("7"), "string_type");
    }

    /// The expected messages are those of Pydantic 2.14.3.
    #[test]
    fn rejects_invalid_uuids_with_pydantics_messages() {
        for (text, reason) in [
            ("", "invalid length: found 0"),
            ("1234", "invalid length: found 4"),
            ("not-a-uuid", "invalid character: found `n` at 0"),
            (" 75cf11e0-f5d5-4dd7-b895-22e7e3d66fa8", "invalid character: found ` ` at 0"),
            ("75cf11e0-f5d5-4dd7-b895-22e7e3d66faé", "invalid character: found `é` at 35"),
            ("\0", "invalid character: found `\0` at 0"),
            ("75cf11e0f5d54dd7b89522e7e3d66fa80", "invalid length: found 33"),
            ("75cf11e0-f5d5-4dd7-b895-22e7e3d66fa", "invalid group length in group 4: expected 12, found 11"),
            ("75cf11e-f5d5-4dd7-b895-22e7e3d66fa80", "invalid group length in group 0: expected 8, found 7"),
            ("75cf11e0-f5d5-4dd7-b89522e7e3d66fa8", "invalid group count: expected 5, found 4"),
            ("{75cf11e0-f5d5-4dd7-b895-22e7e3d66fa80}", "invalid group length in group 4: expected 12, found 15"),
            ("{abc}", "invalid group count: expected 5, found 1"),
        ] {
            let error = Uuid::read(&serde_json::to_string(text).expect("JSON")).expect_err(text);
            assert_eq!(error.msg, format!("Input should be a valid UUID, {reason}"), "{text}");
            assert_eq!(error.kind, "uuid_parsing");
        }
        assert_eq!(kind::<Uuid>("7"), "uuid_type");
        let id = "75cf11e0-f5d5-4dd7-b895-22e7e3d66fa8";
        for text in [id, "75CF11E0F5D54DD7B89522E7E3D66FA8", &format!("{{{id}}}"), &format!("urn:uuid:{id}")] {
            assert_eq!(Uuid::read(&format!("\"{text}\"")).map(|id| id.to_string()), Ok(id.into()), "{text}");
        }
    }
}
