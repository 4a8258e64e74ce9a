//! The fields of a JSON object: found in one pass, then read one by one with every error recorded.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{MAX_ERRORS, json_text, not_json};
use crate::{
    problem::Problem,
    validation::{
        FieldError, ValidationError, Value,
        text::{Text, parse_string},
    },
};

/// Up to this number of fields, duplicate keys are found by comparison with all earlier keys, which is faster than a
/// set. Beyond it a set avoids quadratic time.
const LINEAR_SEARCH_LIMIT: usize = 16;

/// The fields of a JSON object with their raw texts, and the errors found so far.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    whole: &'a str,
    /// The object's index, if it is an element of a list.
    index: Option<usize>,
    /// The secret field, if there is one ([`super::FromJsonObject::SECRET`]).
    secret: Option<&'static str>,
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    pub(super) errors: Vec<ValidationError>,
}

impl<'a> Fields<'a> {
    /// Finds the fields of a body that is an object.
    ///
    /// # Errors
    /// 400 if the body is not JSON in UTF-8; 422 if it is not an object.
    pub(super) fn parse(raw: &'a [u8], secret: Option<&'static str>) -> Result<Self, Problem> {
        let whole = json_text(raw, '{', not_an_object, secret.is_some())?;
        Self::parse_object(whole, None, secret).map_err(|error| not_json(&error))
    }

    /// Finds the fields of an object, which may be an element of a list. Values stay unparsed: deep nesting costs
    /// nothing and numbers stay exact.
    ///
    /// # Errors
    /// The text is not JSON.
    pub(super) fn parse_object(
        whole: &'a str,
        index: Option<usize>,
        secret: Option<&'static str>,
    ) -> serde_json::Result<Self> {
        let Object(fields) = serde_json::from_str(whole)?;
        let mut fields = Self { whole, index, secret, fields, errors: Vec::new() };
        fields.record_duplicates();
        Ok(fields)
    }

    /// Records an error for each repeated key: of two values for one key, it is unknown which one the sender means.
    fn record_duplicates(&mut self) {
        let mut seen = HashSet::new();
        let mut duplicates = Vec::new();
        for (at, (key, value)) in self.fields.iter().enumerate() {
            let is_repeated = if self.fields.len() <= LINEAR_SEARCH_LIMIT {
                self.fields.iter().take(at).any(|(earlier, _)| earlier == key)
            } else {
                !seen.insert(key)
            };
            if is_repeated && duplicates.len() < MAX_ERRORS {
                let input = Some(value.get()).filter(|_| self.secret.is_none());
                duplicates.push(self.locate(FieldError::value_error("duplicate key"), key, input));
            }
        }
        self.errors.append(&mut duplicates);
    }

    /// Reads a field and records its error. An absent field that is optional has the value [`Value::when_absent`].
    pub(crate) fn value<T: Value>(&mut self, name: &'static str) -> Option<T::Out> {
        let (read, input) = match self.fields.iter().find(|(key, _)| key == name) {
            Some((_, value)) => (T::read(value.get()), self.input_to_echo(name, value.get())),
            None => {
                (T::when_absent().ok_or_else(FieldError::missing), Some(self.whole).filter(|_| self.secret.is_none()))
            }
        };
        read.map_err(|error| self.errors.push(self.locate(error, name, input))).ok()
    }

    /// The text of a field, if it has one.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let (_, value) = self.fields.iter().find(|(key, _)| key == name)?;
        Some(parse_string(value.get())?.ok()?.into_owned())
    }

    /// Records an error of the body as a whole, but only if every field is valid, as Pydantic's model validators do.
    pub(crate) fn record_body_error(&mut self, error: FieldError) {
        if self.errors.is_empty() {
            self.errors.push(error.at_part("body", Some(self.whole).filter(|_| self.secret.is_none())));
        }
    }

    /// The part of a field that a response may echo. If the body has a secret, its objects and lists are not echoed
    /// either, since they could contain it.
    fn input_to_echo(&self, name: &str, raw: &'a str) -> Option<&'a str> {
        let is_public = self.secret.is_none_or(|secret| secret != name && !raw.starts_with(['{', '[']));
        is_public.then_some(raw)
    }

    fn locate(&self, error: FieldError, name: &str, input: Option<&str>) -> ValidationError {
        match self.index {
            None => error.at("body", name, input),
            Some(index) => error.at_element(index, Some(name), input),
        }
    }
}

/// The error of a value that should be an object.
pub(super) fn not_an_object() -> FieldError {
    FieldError::new("model_attributes_type", "Input should be a valid dictionary or object to extract fields from")
}

/// An object's entries in their order. Unlike serde's map types, it keeps duplicate keys.
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
                let mut fields = Vec::with_capacity(LINEAR_SEARCH_LIMIT / 2);
                while let Some((Text(key), value)) = map.next_entry()? {
                    fields.push((key, value));
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
