//! Bodies that are lists of objects: read element by element, with all failing fields of all elements reported at once.

use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};

use super::{Fields, FromJsonBody, FromJsonObject, MAX_ERRORS, fields::not_an_object, json_text, read_elements};
use crate::{
    problem::Problem,
    schema::inline,
    validation::{FieldError, ValidationError},
};

/// A non-empty list of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List<T>(pub Vec<T>);

impl<T: FromJsonObject> FromJsonBody for List<T> {
    fn register(registry: &mut Registry) {
        <T as FromJsonBody>::register(registry);
    }

    fn schema() -> MetaSchemaRef {
        let items = Some(Box::new(<T as FromJsonBody>::schema()));
        inline(MetaSchema { items, min_items: Some(1), ..MetaSchema::new("array") })
    }

    fn parse(raw: &[u8]) -> Result<Self, Problem> {
        let whole =
            json_text(raw, '[', || FieldError::new("list_type", "Input should be a valid list"), T::SECRET.is_some())?;
        let mut elements = Elements::<T> { values: Vec::new(), errors: Vec::new() };
        read_elements(whole, |index, raw| elements.read_element(index, raw))?;
        if !elements.errors.is_empty() {
            return Err(Problem::invalid(elements.errors));
        }
        if elements.values.is_empty() {
            let msg = "List should have at least 1 item after validation, not 0";
            let error = FieldError::new("too_short", msg).with("field_type", "List");
            return Err(error.with("min_length", 1).with("actual_length", 0).at_part("body", Some(whole)).into());
        }
        Ok(Self(elements.values))
    }
}

/// The elements read so far. Each is read as soon as it is parsed, so a body of very small elements needs no memory
/// beyond the values made from them.
struct Elements<T> {
    values: Vec<T>,
    errors: Vec<ValidationError>,
}

impl<T: FromJsonObject> Elements<T> {
    /// Reads one element. After [`MAX_ERRORS`] errors, further elements are only checked to be JSON.
    fn read_element(&mut self, index: usize, raw: &str) -> serde_json::Result<()> {
        if self.errors.len() >= MAX_ERRORS {
            return Ok(());
        }
        if !raw.starts_with('{') {
            self.errors.push(not_an_object().at_element(index, None, Some(raw).filter(|_| T::SECRET.is_none())));
            return Ok(());
        }
        let mut fields = Fields::parse_object(raw, Some(index), T::SECRET)?;
        match T::read(&mut fields) {
            Some(value) if fields.errors.is_empty() => self.values.push(value),
            _ => {
                self.errors.append(&mut fields.errors);
                self.errors.truncate(MAX_ERRORS);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
