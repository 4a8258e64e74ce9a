//! The `request!` macro: one declaration of a JSON object generates its struct, its reader and its schema.

use poem_openapi::registry::{MetaSchema, MetaSchemaRef};

use super::Value;

/// The schema of one field of a body in `openapi.json`.
pub struct Field {
    name: &'static str,
    required: bool,
    schema: MetaSchema,
}

impl Field {
    /// A field of this type.
    pub fn of<T: Value>(name: &'static str, description: &'static str) -> Self {
        let description = Some(description.trim()).filter(|text| !text.is_empty());
        let schema = MetaSchema { description, ..T::schema() };
        Self { name, required: T::REQUIRED, schema }
    }
}

/// The schema of an object with these fields.
pub fn object_schema(description: &'static str, fields: Vec<Field>, example: serde_json::Value) -> MetaSchema {
    MetaSchema {
        description: Some(description.trim()),
        required: fields.iter().filter(|field| field.required).map(|field| field.name).collect(),
        properties: fields
            .into_iter()
            .map(|field| (field.name, MetaSchemaRef::Inline(Box::new(field.schema))))
            .collect(),
        example: Some(example),
        ..MetaSchema::new("object")
    }
}

/// Declares a body that is an object. Each field's type is a [`Value`]; the doc comments go into `openapi.json`.
macro_rules! request {
    (
        $(#[doc = $doc:literal])*
        #[example($example:tt)]
        $visibility:vis struct $Name:ident {
            $($(#[doc = $field_doc:literal])* $field_visibility:vis $field:ident: $Type:ty,)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug)]
        $visibility struct $Name {
            $($(#[doc = $field_doc])* $field_visibility $field: $Type,)*
        }

        impl $crate::validation::FromJsonObject for $Name {
            type Schema = Self;

            const SECRET: Option<&'static str> = {
                let mut secret = None;
                $(if <$Type as $crate::validation::Value>::SECRET {
                    secret = Some(stringify!($field));
                })*
                secret
            };

            fn read(fields: &mut $crate::validation::Fields<'_>) -> Option<Self> {
                $(let $field = fields.value::<$Type>(stringify!($field));)*
                Some(Self { $($field: $field?,)* })
            }
        }

        impl ::poem_openapi::types::Type for $Name {
            const IS_REQUIRED: bool = true;
            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> ::std::borrow::Cow<'static, str> {
                stringify!($Name).into()
            }

            fn schema_ref() -> ::poem_openapi::registry::MetaSchemaRef {
                ::poem_openapi::registry::MetaSchemaRef::Reference(stringify!($Name).into())
            }

            fn register(registry: &mut ::poem_openapi::registry::Registry) {
                registry.create_schema::<Self, _>(stringify!($Name).into(), |_| {
                    let fields = vec![
                        $($crate::validation::Field::of::<$Type>(
                            stringify!($field),
                            concat!($($field_doc, "\n"),*),
                        ),)*
                    ];
                    let example = ::serde_json::json!($example);
                    $crate::validation::object_schema(concat!($($doc, "\n"),*), fields, example)
                });
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::once(self))
            }
        }
    };
}

pub(crate) use request;

#[cfg(test)]
mod tests {
    use poem_openapi::{registry::Registry, types::Type};
    use serde_json::json;

    use crate::validation::{Integer, Text};

    request! {
        /// A thing.
        #[example({"name": "Ada"})]
        struct ThingRequest {
            /// What it is called.
            name: Text<1, 5>,
            count: Option<Integer<0, 9>>,
        }
    }

    #[test]
    fn the_schema_matches_the_reader() {
        let mut registry = Registry::new();
        ThingRequest::register(&mut registry);
        let schema = serde_json::to_value(&registry.schemas["ThingRequest"]).expect("JSON");
        assert_eq!(schema["required"], json!(["name"]));
        assert_eq!(schema["description"], "A thing.");
        assert_eq!(schema["example"], json!({"name": "Ada"}));
        assert_eq!(schema["properties"]["name"]["description"], "What it is called.");
        assert_eq!(schema["properties"]["name"]["maxLength"], 5);
        assert_eq!(schema["properties"]["count"]["nullable"], true);
        let read = |json: &str| {
            use crate::validation::FromJsonBody;
            ThingRequest::parse(json.as_bytes()).map(|thing| (thing.name.0, thing.count.map(|count| count.0))).ok()
        };
        assert_eq!(read(r#"{"name":"Ada","count":"7"}"#), Some(("Ada".into(), Some(7))));
        assert_eq!(read(r#"{"name":"Ada"}"#), Some(("Ada".into(), None)));
        assert_eq!(read(r#"{"count":7}"#), None);
        assert_eq!(read(r#"{"name":"Ada","count":10}"#), None);
    }
}
