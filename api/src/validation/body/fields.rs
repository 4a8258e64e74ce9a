//! The fields of a JSON object: found once, read one by one, every failure noted.

use std::{borrow::Cow, collections::HashSet, fmt, ops::RangeInclusive};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{MOST_ERRORS, not_json, text_of};
use crate::{
    problem::Problem,
    validation::{FieldError, ValidationError, Value},
};

/// Up to here, comparing each key with all before it is faster than a set; beyond, it would be quadratic.
const FEW_FIELDS: usize = 16;

/// The fields of a JSON object with their raw texts, and everything found wrong with them so far.
#[derive(Debug)]
pub struct Fields<'a> {
    whole: &'a str,
    /// Where the object stands, in a list.
    index: Option<usize>,
    /// A field that no answer repeats ([`super::FromBody::SECRET`]).
    secret: Option<&'static str>,
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    pub(super) errors: Vec<ValidationError>,
}

impl<'a> Fields<'a> {
    /// Finds the fields of a body that is an object.
    ///
    /// # Errors
    /// 400 when it is not JSON in UTF-8, 422 when it is not an object.
    pub(super) fn parse(raw: &'a [u8], secret: Option<&'static str>) -> Result<Self, Problem> {
        let whole = text_of(raw, '{', not_an_object, secret.is_some())?;
        Self::of_object(whole, None, secret).map_err(|error| not_json(&error))
    }

    /// Finds the fields of an object, which may be an element of a list. Values stay unparsed, so their depth costs
    /// nothing and their numbers stay exact.
    ///
    /// # Errors
    /// When it is not JSON.
    pub(super) fn of_object(
        whole: &'a str,
        index: Option<usize>,
        secret: Option<&'static str>,
    ) -> serde_json::Result<Self> {
        let Object(fields) = serde_json::from_str(whole)?;
        let mut fields = Self { whole, index, secret, fields, errors: Vec::new() };
        fields.report_duplicates();
        Ok(fields)
    }

    /// Two values under one key are two opinions about what was sent.
    fn report_duplicates(&mut self) {
        let mut seen = HashSet::new();
        let mut duplicates = Vec::new();
        for (at, (key, value)) in self.fields.iter().enumerate() {
            let again = if self.fields.len() <= FEW_FIELDS {
                self.fields.iter().take(at).any(|(earlier, _)| earlier == key)
            } else {
                !seen.insert(key)
            };
            if again && duplicates.len() < MOST_ERRORS {
                let shown = Some(value.get()).filter(|_| self.secret.is_none());
                duplicates.push(self.place(FieldError::rule("duplicate key"), key, shown));
            }
        }
        self.errors.append(&mut duplicates);
    }

    /// The value of a field.
    pub fn value<T: Value>(&mut self, name: &'static str) -> Option<T> {
        let given = self.fields.iter().any(|(key, _)| key == name);
        if given || T::REQUIRED { self.field(name, T::read) } else { T::absent() }
    }

    /// A field that must be there; `read` gets its raw JSON.
    fn field<T>(&mut self, name: &'static str, read: impl FnOnce(&'a str) -> Result<T, FieldError>) -> Option<T> {
        let invalid = match self.fields.iter().find(|(key, _)| key == name) {
            None => self.place(FieldError::missing(), name, self.secret.is_none().then_some(self.whole)),
            Some((_, value)) => match read(value.get()) {
                Ok(value) => return Some(value),
                Err(wrong) => self.place(wrong, name, self.shown(name, value.get())),
            },
        };
        self.errors.push(invalid);
        None
    }

    /// Notes what is wrong with the body as a whole, as Pydantic's validators of a model do: only when each field is right.
    pub fn note_whole(&mut self, wrong: FieldError) {
        if self.errors.is_empty() {
            self.errors.push(wrong.in_whole("body", Some(self.whole).filter(|_| self.secret.is_none())));
        }
    }

    /// What an answer repeats of a field: of a body with a secret, no other field that could have it inside.
    fn shown(&self, name: &str, raw: &'a str) -> Option<&'a str> {
        let shown = self.secret.is_none_or(|secret| secret != name && !raw.starts_with(['{', '[']));
        shown.then_some(raw)
    }

    fn place(&self, wrong: FieldError, name: &str, input: Option<&str>) -> ValidationError {
        match self.index {
            None => wrong.at("body", name, input),
            Some(index) => wrong.at_element(index, Some(name), input),
        }
    }
}

/// What should have been an object.
pub(super) fn not_an_object() -> FieldError {
    FieldError::new("model_attributes_type", "Input should be a valid dictionary or object to extract fields from")
}

/// A JSON string's text, or `None` when the raw JSON is not a string.
pub fn string(raw: &str) -> Option<Result<Cow<'_, str>, FieldError>> {
    if !raw.starts_with('"') {
        return None;
    }
    Some(serde_json::from_str::<Text<'_>>(raw).map(|Text(text)| text).map_err(|_| {
        // The raw text is well-formed JSON, so only half of a surrogate pair is left to be wrong.
        FieldError::not_unicode()
    }))
}

/// Reads the raw JSON of a text of so many characters.
pub fn text(raw: &str, length: RangeInclusive<usize>) -> Result<String, FieldError> {
    let text = string(raw).ok_or_else(FieldError::not_a_string)??;
    let (least, most) = length.into_inner();
    // The number of bytes bounds the number of characters, and mostly settles the question without counting.
    let count = if text.len() < least || text.len() > most || least > 1 { text.chars().count() } else { least.max(1) };
    if text.is_empty() && least > 0 || count < least {
        return Err(FieldError::too_short(least));
    }
    if count > most {
        return Err(FieldError::too_long(most));
    }
    if text.contains('\0') { Err(FieldError::nul()) } else { Ok(text.into_owned()) }
}

/// A string that borrows from its JSON unless it had escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object's entries in their order, duplicates included; a map type of serde's would drop them.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::with_capacity(FEW_FIELDS / 2);
                while let Some((Text(key), value)) = map.next_entry()? {
                    fields.push((key, value));
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
