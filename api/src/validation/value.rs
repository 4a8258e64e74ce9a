//! Field types. Each type has its readers and its schema in one place, so that they cannot differ.

use std::{marker::PhantomData, ops::RangeInclusive};

use jobs::text::is_blank;
use poem_openapi::registry::MetaSchema;
use uuid::Uuid;

use super::{
    FieldError, QueryValue, number,
    text::{parse_string, parse_text},
};
use crate::schema::any_of;

/// The pattern of texts that can be stored: without NUL, which PostgreSQL cannot store.
pub(super) const NO_NUL_PATTERN: &str = "^[^\\x00]*$";

/// The type of a field in a body.
pub(crate) trait Value {
    /// The type that the field is read as.
    type Out;

    /// Whether the value is secret, so that no response may echo it.
    const SECRET: bool = false;

    /// The schema in `openapi.json`: what [`Self::read`] accepts, and as little else as a schema can state.
    fn schema() -> MetaSchema;

    /// Reads the value from its raw JSON.
    ///
    /// # Errors
    /// The value is invalid; the error has Pydantic's type and message.
    fn read(raw: &str) -> Result<Self::Out, FieldError>;

    /// The value of an absent field; `None` if the field is required.
    fn when_absent() -> Option<Self::Out> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    type Out = Option<T::Out>;

    const SECRET: bool = T::SECRET;

    fn schema() -> MetaSchema {
        MetaSchema { nullable: true, ..T::schema() }
    }

    fn read(raw: &str) -> Result<Self::Out, FieldError> {
        if raw == "null" { Ok(None) } else { T::read(raw).map(Some) }
    }

    fn when_absent() -> Option<Self::Out> {
        Some(None)
    }
}

/// A text of `MIN` to `MAX` characters without NUL.
pub(crate) struct Text<const MIN: usize, const MAX: usize>;

impl<const MIN: usize, const MAX: usize> Value for Text<MIN, MAX> {
    type Out = String;

    fn schema() -> MetaSchema {
        text_schema(MIN..=MAX)
    }

    fn read(raw: &str) -> Result<String, FieldError> {
        parse_text(raw, MIN..=MAX)
    }
}

/// A [`Text`] with at least one visible character, for names: blanks and invisible characters alone are rejected.
pub(crate) struct VisibleText<const MIN: usize, const MAX: usize>;

impl<const MIN: usize, const MAX: usize> Value for VisibleText<MIN, MAX> {
    type Out = String;

    fn schema() -> MetaSchema {
        MetaSchema { pattern: Some(VISIBLE_PATTERN.into()), ..text_schema(MIN..=MAX) }
    }

    fn read(raw: &str) -> Result<String, FieldError> {
        let text = parse_text(raw, MIN..=MAX)?;
        if is_blank(&text) { Err(FieldError::too_short(1)) } else { Ok(text) }
    }
}

/// The pattern of texts that are not blank and have no NUL. It treats zero-width characters as visible: Unicode lists
/// too many of them for the regex engines of client generators.
pub(crate) const VISIBLE_PATTERN: &str = "^[^\\x00]*[^\\x00\\s][^\\x00]*$";

/// The schema in `openapi.json` of a text with a number of characters within `length`.
fn text_schema(length: RangeInclusive<usize>) -> MetaSchema {
    let (min, max) = length.into_inner();
    MetaSchema {
        min_length: (min > 0).then_some(min),
        max_length: Some(max),
        pattern: Some(NO_NUL_PATTERN.into()),
        ..MetaSchema::new("string")
    }
}

/// An integer from `MIN` to `MAX`, read in lax mode. `T` holds all of them.
pub(crate) struct Integer<const MIN: i64, const MAX: i64, T = i64>(PhantomData<T>);

impl<const MIN: i64, const MAX: i64, T: TryFrom<i64>> Integer<MIN, MAX, T> {
    fn convert(number: i64) -> Result<T, FieldError> {
        T::try_from(number).map_err(|_| FieldError::above(MAX))
    }
}

impl<const MIN: i64, const MAX: i64, T: TryFrom<i64>> Value for Integer<MIN, MAX, T> {
    type Out = T;

    fn schema() -> MetaSchema {
        number::lax_integer_schema(MIN, MAX)
    }

    fn read(raw: &str) -> Result<T, FieldError> {
        number::integer_from_json(raw, MIN, MAX).and_then(Self::convert)
    }
}

impl<const MIN: i64, const MAX: i64, T: TryFrom<i64>> QueryValue for Integer<MIN, MAX, T> {
    type Out = T;

    fn schema() -> MetaSchema {
        number::integer_schema(MIN, MAX)
    }

    fn read(text: &str) -> Result<T, FieldError> {
        number::integer_from_text(text, MIN, MAX).and_then(Self::convert)
    }
}

/// A type with few values, each of which has a name.
pub(crate) trait Choice: Copy + 'static {
    /// All values, in the order of the error text.
    const ALL: &'static [Self];

    /// The name in requests.
    fn name(self) -> &'static str;
}

/// One of the values of a [`Choice`]; its name must match exactly.
pub(crate) struct OneOf<T>(PhantomData<T>);

/// As [`OneOf`], but an absent parameter is the first value.
pub(crate) struct FirstOr<T>(PhantomData<T>);

fn names<T: Choice>() -> impl Iterator<Item = &'static str> {
    T::ALL.iter().map(|value| value.name())
}

/// Returns the value with this name. The error has all names.
fn parse_choice<T: Choice>(text: &str) -> Result<T, FieldError> {
    let value = T::ALL.iter().find(|value| value.name() == text);
    value.copied().ok_or_else(|| FieldError::not_one_of(&list_names(names::<T>())))
}

/// Lists names in Pydantic's form: `'A', 'B' or 'C'`.
pub(crate) fn list_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.map(|name| format!("'{name}'")).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}

impl<T: Choice> Value for OneOf<T> {
    type Out = T;

    fn schema() -> MetaSchema {
        MetaSchema { enum_items: names::<T>().map(Into::into).collect(), ..MetaSchema::new("string") }
    }

    fn read(raw: &str) -> Result<T, FieldError> {
        let text = parse_string(raw).and_then(Result::ok).unwrap_or_default();
        parse_choice(&text).map_err(|error| error.with("expected", list_names(names::<T>())))
    }
}

impl<T: Choice> QueryValue for OneOf<T> {
    type Out = T;

    fn schema() -> MetaSchema {
        <Self as Value>::schema()
    }

    fn read(text: &str) -> Result<T, FieldError> {
        parse_choice(text)
    }
}

impl<T: Choice> QueryValue for FirstOr<T> {
    type Out = T;

    const REQUIRED: bool = false;

    fn schema() -> MetaSchema {
        MetaSchema { default: names::<T>().next().map(Into::into), ..<OneOf<T> as Value>::schema() }
    }

    fn read(text: &str) -> Result<T, FieldError> {
        parse_choice(text)
    }

    fn when_absent() -> Option<T> {
        T::ALL.first().copied()
    }
}

/// True or false, read in Pydantic's lax mode: also as `1` and `0`, or as one of `TRUE` and `FALSE`.
pub(crate) struct Flag;

impl Flag {
    const TRUE: [&str; 6] = ["1", "on", "t", "true", "y", "yes"];
    const FALSE: [&str; 6] = ["0", "off", "f", "false", "n", "no"];

    fn parse(text: &str) -> Result<bool, FieldError> {
        let text = text.trim().to_ascii_lowercase();
        match (Self::TRUE.contains(&&*text), Self::FALSE.contains(&&*text)) {
            (true, _) => Ok(true),
            (_, true) => Ok(false),
            _ => Err(FieldError::new("bool_parsing", "Input should be a valid boolean, unable to interpret input")),
        }
    }
}

impl Value for Flag {
    type Out = bool;

    fn schema() -> MetaSchema {
        MetaSchema::new("boolean")
    }

    fn read(raw: &str) -> Result<bool, FieldError> {
        match parse_string(raw) {
            Some(text) => Self::parse(&text?),
            None if matches!(raw, "true" | "false" | "0" | "1") => Self::parse(raw),
            None => Err(FieldError::new("bool_type", "Input should be a valid boolean")),
        }
    }
}

impl QueryValue for Flag {
    type Out = bool;

    const REQUIRED: bool = false;

    fn schema() -> MetaSchema {
        MetaSchema { default: Some(false.into()), ..MetaSchema::new("boolean") }
    }

    fn read(text: &str) -> Result<bool, FieldError> {
        Self::parse(text)
    }

    fn when_absent() -> Option<bool> {
        Some(false)
    }
}

/// A text without its outer blanks, which must not be empty. It may contain NUL, so it is not for texts that are
/// stored: those are a [`Text`].
pub(crate) struct StrippedText;

impl Value for StrippedText {
    type Out = String;

    fn schema() -> MetaSchema {
        MetaSchema { pattern: Some("\\S".into()), ..MetaSchema::new("string") }
    }

    fn read(raw: &str) -> Result<String, FieldError> {
        let text = parse_string(raw).ok_or_else(FieldError::not_a_string)??;
        match text.trim() {
            "" => Err(FieldError::too_short(1)),
            text => Ok(text.to_owned()),
        }
    }
}

impl Value for Uuid {
    type Out = Self;

    fn schema() -> MetaSchema {
        // The parser also accepts forms other than the standard's.
        let plain = "[0-9a-fA-F]{32}";
        let grouped = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
        let pattern = format!("^({plain}|\\{{{grouped}\\}}|urn:uuid:{grouped})$");
        let other = MetaSchema { pattern: Some(pattern), ..MetaSchema::new("string") };
        any_of([MetaSchema::new_with_format("string", "uuid"), other])
    }

    /// Pydantic uses the same parser, so the parser's messages are those of Pydantic 2.14 (earlier ones were longer).
    fn read(raw: &str) -> Result<Self, FieldError> {
        let text = parse_string(raw)
            .ok_or_else(|| FieldError::new("uuid_type", "UUID input should be a string, bytes or UUID object"))??;
        parse_uuid(&text)
    }
}

/// Parses a UUID in any of its forms.
///
/// # Errors
/// The text has none of these forms.
pub(crate) fn parse_uuid(text: &str) -> Result<Uuid, FieldError> {
    // Pydantic accepts the prefix of a URN in lower case only: any other fails at its first character.
    let refused = |start: &&str| start.eq_ignore_ascii_case("urn:uuid:") && *start != "urn:uuid:" && text.len() <= 45;
    Uuid::parse_str(text.get(..9).filter(refused).map_or(text, |start| &start[..1])).map_err(|error| {
        let reason = error.to_string();
        FieldError::new("uuid_parsing", format!("Input should be a valid UUID, {reason}")).with("error", reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T: Value>(raw: &str) -> &'static str {
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
        assert_eq!(Text::<1, 2>::read(r#""\u00e9\ud83d\ude00""#), Ok("é😀".into()));
    }

    #[test]
    fn an_optional_value_may_be_absent_or_null() {
        assert_eq!(<Option<Integer<0, 9>> as Value>::read("null"), Ok(None));
        assert_eq!(<Option<Integer<0, 9>> as Value>::when_absent(), Some(None));
        assert_eq!(<Option<Integer<0, 9>> as Value>::read("\" 7 \""), Ok(Some(7)));
        assert_eq!(kind::<Option<Integer<0, 9>>>("10"), "less_than_equal");
        assert!(<Integer<0, 9> as Value>::when_absent().is_none());
    }

    #[test]
    fn a_flag_is_true_or_false_in_many_notations() {
        for (raw, value) in [("true", true), ("1", true), ("\"YES\"", true), ("false", false), ("\" off \"", false)] {
            assert_eq!(<Flag as Value>::read(raw), Ok(value), "{raw}");
        }
        assert_eq!(
            [kind::<Flag>("\"perhaps\""), kind::<Flag>("2"), kind::<Flag>("null")],
            ["bool_parsing", "bool_type", "bool_type"]
        );
        assert_eq!(<Flag as QueryValue>::read("true"), Ok(true));
        assert!(<Flag as QueryValue>::read("").is_err());
    }

    #[test]
    fn stripped_text_drops_outer_blanks() {
        assert_eq!(StrippedText::read("\" MRM\\n\""), Ok("MRM".into()));
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
            ("URN:UUID:75cf11e0-f5d5-4dd7-b895-22e7e3d66fa8", "invalid character: found `U` at 0"),
            ("urn:Uuid:75cf11e0-f5d5-4dd7-b895-22e7e3d66fa8", "invalid character: found `u` at 0"),
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
