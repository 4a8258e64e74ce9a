//! Building blocks of the schemas in `openapi.json`.

use poem_openapi::registry::{MetaSchema, MetaSchemaRef};

/// A schema at the place of its use.
pub(crate) fn inline(schema: MetaSchema) -> MetaSchemaRef {
    MetaSchemaRef::Inline(Box::new(schema))
}

/// A schema with a description.
pub(crate) fn described(description: &'static str, schema: MetaSchema) -> MetaSchema {
    MetaSchema { description: Some(description), ..schema }
}

/// A value that has one of several forms.
pub(crate) fn any_of(forms: impl IntoIterator<Item = MetaSchema>) -> MetaSchema {
    MetaSchema { any_of: forms.into_iter().map(inline).collect(), ..MetaSchema::ANY }
}

/// A list of such items.
pub(crate) fn list_of(item: MetaSchema) -> MetaSchema {
    MetaSchema { items: Some(Box::new(inline(item))), ..MetaSchema::new("array") }
}

/// An object with these fields, of which the first `required` ones are always present.
pub(crate) fn object<const FIELDS: usize>(required: usize, fields: [(&'static str, MetaSchema); FIELDS]) -> MetaSchema {
    MetaSchema {
        required: fields.iter().take(required).map(|(name, _)| *name).collect(),
        properties: fields.map(|(name, schema)| (name, inline(schema))).into(),
        ..MetaSchema::new("object")
    }
}
