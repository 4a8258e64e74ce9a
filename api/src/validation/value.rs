//! What a field of a body can be: each type has its reader and its schema in one place, so that they cannot differ.

use std::ops::RangeInclusive;

use jobs::text::is_blank;
use poem_openapi::registry::MetaSchema;
use uuid::Uuid;

use super::{
    FieldError,
    body::{self, string},
    number,
};

/// What a text that is stored may consist of, as a pattern: everything but NUL, which PostgreSQL cannot hold.
pub const WITHOUT_NUL: &str = "^[^\\x00]*$";

/// A value of a field in a body.
pub trait Value: Sized {
    /// Whether a body without the field is refused.
    const REQUIRED: bool = true;
    /// Whether no answer may repeat it.
    const SECRET: bool = false;

    /// How `openapi.json` describes it: exactly what [`Self::read`] takes.
    fn schema() -> MetaSchema;

    /// Reads its raw JSON.
    ///
    /// # Errors
    /// What is wrong with it, in Pydantic's words.
    fn read(raw: &str) -> Result<Self, FieldError>;

    /// What a body without the field means; `None` where it is required.
    fn absent() -> Option<Self> {
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

    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// A text of so many characters, none of them NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<const LEAST: usize, const MOST: usize>(pub String);

impl<const LEAST: usize, const MOST: usize> Value for Text<LEAST, MOST> {
    fn schema() -> MetaSchema {
        text_schema(LEAST..=MOST)
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        body::text(raw, LEAST..=MOST).map(Self)
    }
}

/// A [`Text`] of which at least one character can be seen: blanks and invisible characters are no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisibleText<const LEAST: usize, const MOST: usize>(pub String);

impl<const LEAST: usize, const MOST: usize> Value for VisibleText<LEAST, MOST> {
    fn schema() -> MetaSchema {
        MetaSchema { pattern: Some(VISIBLE.into()), ..text_schema(LEAST..=MOST) }
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        let text = body::text(raw, LEAST..=MOST)?;
        if is_blank(&text) { Err(FieldError::too_short(1)) } else { Ok(Self(text)) }
    }
}

/// A text without NUL that is not blank, as a pattern. It takes characters without width for visible: those that Unicode
/// lists are too many for the engines of generators.
pub const VISIBLE: &str = "^[^\\x00]*[^\\x00\\s][^\\x00]*$";

/// How `openapi.json` describes a text of so many characters.
pub fn text_schema(length: RangeInclusive<usize>) -> MetaSchema {
    let (least, most) = length.into_inner();
    MetaSchema {
        min_length: (least > 0).then_some(least),
        max_length: Some(most),
        pattern: Some(WITHOUT_NUL.into()),
        ..MetaSchema::new("string")
    }
}

/// A whole number within a range, in the lax mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Integer<const LEAST: i64, const MOST: i64>(pub i64);

impl<const LEAST: i64, const MOST: i64> Value for Integer<LEAST, MOST> {
    fn schema() -> MetaSchema {
        number::lax_integer_schema(LEAST, MOST)
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        number::integer_in_json(raw, LEAST, MOST).map(Self)
    }
}

/// A text that is not empty once its outer blanks are left out. It may have any character, NUL too: what is to be stored
/// is a [`Text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stripped(pub String);

impl Value for Stripped {
    fn schema() -> MetaSchema {
        MetaSchema { pattern: Some("\\S".into()), ..MetaSchema::new("string") }
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        let text = string(raw).ok_or_else(FieldError::not_a_string)??;
        match text.trim() {
            "" => Err(FieldError::too_short(1)),
            text => Ok(Self(text.to_owned())),
        }
    }
}

impl Value for Uuid {
    fn schema() -> MetaSchema {
        // Of the forms that the parser takes, one is the standard's.
        let plain = "[0-9a-fA-F]{32}";
        let grouped = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
        let pattern = format!("^({plain}|\\{{{grouped}\\}}|urn:uuid:{grouped})$");
        let other = MetaSchema { pattern: Some(pattern), ..MetaSchema::new("string") };
        number::any_of([MetaSchema::new_with_format("string", "uuid"), other])
    }

    /// Pydantic is built on the same parser, so that its own words are Pydantic's (2.14; earlier ones were longer).
    fn read(raw: &str) -> Result<Self, FieldError> {
        let text = string(raw)
            .ok_or_else(|| FieldError::new("uuid_type", "UUID input should be a string, bytes or UUID object"))??;
        Self::parse_str(&text).map_err(|error| {
            let reason = error.to_string();
            FieldError::new("uuid_parsing", format!("Input should be a valid UUID, {reason}")).error(reason)
        })
    }
}

/// Reads one of a few words, exactly; `expected` names them as Pydantic does: `'A', 'B' or 'C'`.
pub fn choice<T>(raw: &str, expected: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, FieldError> {
    let wrong = || FieldError::new("enum", format!("Input should be {expected}")).expected(expected);
    string(raw).and_then(Result::ok).and_then(|text| parse(&text)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T: Value + std::fmt::Debug>(raw: &str) -> &'static str {
        T::read(raw).map_or_else(|wrong| wrong.kind, |_| "ok")
    }

    #[test]
    fn counts_characters_not_bytes() {
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
        assert_eq!(Option::<Integer<0, 9>>::absent(), Some(None));
        assert_eq!(Option::<Integer<0, 9>>::read("\" 7 \""), Ok(Some(Integer(7))));
        assert_eq!(kind::<Option<Integer<0, 9>>>("10"), "less_than_equal");
        assert!(Integer::<0, 9>::absent().is_none());
    }

    #[test]
    fn blanks_around_a_text_do_not_count() {
        assert_eq!(Stripped::read("\" MRM\\n\""), Ok(Stripped("MRM".into())));
        assert_eq!(kind::<Stripped>("\" \""), "string_too_short");
        assert_eq!(kind::<Stripped>("7"), "string_type");
    }

    /// As Pydantic 2.14.3 was seen to answer.
    #[test]
    fn refuses_what_is_no_uuid_in_pydantics_words() {
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
            let wrong = Uuid::read(&serde_json::to_string(text).expect("JSON")).expect_err(text);
            assert_eq!(wrong.msg, format!("Input should be a valid UUID, {reason}"), "{text}");
            assert_eq!(wrong.kind, "uuid_parsing");
        }
        assert_eq!(kind::<Uuid>("7"), "uuid_type");
        let id = "75cf11e0-f5d5-4dd7-b895-22e7e3d66fa8";
        for text in [id, "75CF11E0F5D54DD7B89522E7E3D66FA8", &format!("{{{id}}}"), &format!("urn:uuid:{id}")] {
            assert_eq!(Uuid::read(&format!("\"{text}\"")).map(|id| id.to_string()), Ok(id.into()), "{text}");
        }
    }
}
