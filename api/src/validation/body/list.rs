//! Bodies that are lists of objects: read element by element, every failing field of each reported at once.

use std::fmt;

use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef, Registry},
    types::Type,
};
use serde::{
    Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Fields, FromBody, FromWhole, MOST_ERRORS, fields::not_an_object, not_json, text_of};
use crate::{
    problem::Problem,
    validation::{FieldError, ValidationError},
};

/// A list of one object or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: FromBody> FromWhole for List<T> {
    fn register(registry: &mut Registry) {
        T::Schema::register(registry);
    }

    fn schema() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            items: Some(Box::new(T::Schema::schema_ref())),
            min_items: Some(1),
            ..MetaSchema::new("array")
        }))
    }

    fn parse(raw: &[u8]) -> Result<Self, Problem> {
        let whole =
            text_of(raw, '[', || FieldError::new("list_type", "Input should be a valid list"), T::SECRET.is_some())?;
        let mut json = serde_json::Deserializer::from_str(whole);
        let read = json.deserialize_seq(Elements::<T>::default()).map_err(|error| not_json(&error))?;
        json.end().map_err(|error| not_json(&error))?;
        if read.failed {
            return Err(Problem::invalid(read.errors));
        }
        if read.values.is_empty() {
            let msg = "List should have at least 1 item after validation, not 0";
            let wrong =
                FieldError::new("too_short", msg).field_type("List").limit("min_length", 1).limit("actual_length", 0);
            return Err(Problem::invalid(vec![wrong.in_whole("body", Some(whole))]));
        }
        Ok(Self(read.values))
    }
}

/// What has been read so far. Elements are taken as they come, so that a body of very small ones costs no more memory
/// than what is made of them.
struct Elements<T> {
    values: Vec<T>,
    errors: Vec<ValidationError>,
    failed: bool,
}

impl<T> Default for Elements<T> {
    fn default() -> Self {
        Self { values: Vec::new(), errors: Vec::new(), failed: false }
    }
}

impl<T: FromBody> Elements<T> {
    /// Reads one element. Once enough has failed, elements only have to be JSON.
    fn take(&mut self, index: usize, raw: &str) -> serde_json::Result<()> {
        if self.errors.len() >= MOST_ERRORS {
            return Ok(());
        }
        if !raw.starts_with('{') {
            self.errors.push(not_an_object().at_element(index, None, Some(raw).filter(|_| T::SECRET.is_none())));
            self.failed = true;
            return Ok(());
        }
        let mut fields = Fields::of_object(raw, Some(index), T::SECRET)?;
        match T::read(&mut fields) {
            Some(value) if fields.errors.is_empty() => self.values.push(value),
            _ => {
                self.failed = true;
                self.errors.append(&mut fields.errors);
                self.errors.truncate(MOST_ERRORS);
            }
        }
        Ok(())
    }
}

impl<'de, T: FromBody> Visitor<'de> for Elements<T> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        let mut index = 0;
        while let Some(element) = list.next_element::<&RawValue>()? {
            self.take(index, element.get()).map_err(Error::custom)?;
            index += 1;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
