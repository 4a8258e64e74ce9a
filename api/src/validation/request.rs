//! The `request!` macro: one declaration of a JSON object is its reader and its schema.

use poem_openapi::registry::MetaSchema;

use super::Value;
use crate::schema::inline;

/// The schema of one field of a body in `openapi.json`.
pub(crate) struct Field {
    name: &'static str,
    required: bool,
    schema: MetaSchema,
}

impl Field {
    /// A field of this type.
    pub(crate) fn of<T: Value>(name: &'static str, description: &'static str) -> Self {
        let description = Some(description.trim()).filter(|text| !text.is_empty());
        Self { name, required: T::when_absent().is_none(), schema: MetaSchema { description, ..T::schema() } }
    }
}

/// The schema of an object with these fields.
pub(crate) fn object_schema(description: &'static str, fields: Vec<Field>, example: serde_json::Value) -> MetaSchema {
    MetaSchema {
        description: Some(description.trim()),
        required: fields.iter().filter(|field| field.required).map(|field| field.name).collect(),
        properties: fields.into_iter().map(|field| (field.name, inline(field.schema))).collect(),
        example: Some(example),
        ..MetaSchema::new("object")
    }
}

/// Declares a body that is an object, with its name in `openapi.json` and the type that it is read as. Each field's type
/// is a [`Value`]; the doc comments go into `openapi.json`.
///
/// A type whose fields differ from those of the body follows the declaration: `=> Ok(Self { … })`, or an error of the body
/// as a whole.
macro_rules! request {
    ($(#[$($attribute:tt)*])* $Name:ident for $Target:ty { $($(#[doc = $doc:literal])* $field:ident: $Type:ty,)* }) => {
        $crate::validation::request! {
            $(#[$($attribute)*])*
            $Name for $Target { $($(#[doc = $doc])* $field: $Type,)* } => Ok(Self { $($field),* })
        }
    };
    (
        $(#[doc = $doc:literal])*
        #[example($example:tt)]
        $Name:ident for $Target:ty { $($(#[doc = $field_doc:literal])* $field:ident: $Type:ty,)* } => $built:expr
    ) => {
        impl $crate::validation::FromJsonObject for $Target {
            const NAME: &'static str = stringify!($Name);

            const SECRET: Option<&'static str> = {
                let mut secret = None;
                $(if <$Type as $crate::validation::Value>::SECRET {
                    secret = Some(stringify!($field));
                })*
                secret
            };

            fn schema() -> ::poem_openapi::registry::MetaSchema {
                let fields = vec![
                    $($crate::validation::Field::of::<$Type>(stringify!($field), concat!($($field_doc, "\n"),*)),)*
                ];
                $crate::validation::object_schema(concat!($($doc, "\n"),*), fields, ::serde_json::json!($example))
            }

            fn read(fields: &mut $crate::validation::Fields<'_>) -> Option<Self> {
                $(let $field = fields.value::<$Type>(stringify!($field));)*
                $(let $field = $field?;)*
                let built: Result<Self, $crate::validation::FieldError> = $built;
                built.map_err(|error| fields.record_body_error(error)).ok()
            }
        }
    };
}

pub(crate) use request;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::validation::{FromJsonBody, FromJsonObject, Integer, Text};

    struct Thing {
        name: String,
        count: Option<i64>,
    }

    request! {
        /// A thing.
        #[example({"name": "Ada"})]
        ThingRequest for Thing {
            /// What it is called.
            name: Text<1, 5>,
            count: Option<Integer<0, 9>>,
        }
    }

    #[test]
    fn the_schema_matches_the_reader() {
        assert_eq!(Thing::NAME, "ThingRequest");
        let schema = serde_json::to_value(<Thing as FromJsonObject>::schema()).expect("JSON");
        assert_eq!(schema["required"], json!(["name"]));
        assert_eq!(schema["description"], "A thing.");
        assert_eq!(schema["example"], json!({"name": "Ada"}));
        assert_eq!(schema["properties"]["name"]["description"], "What it is called.");
        assert_eq!(schema["properties"]["name"]["maxLength"], 5);
        assert_eq!(schema["properties"]["count"]["nullable"], true);
        let read = |json: &str| Thing::parse(json.as_bytes()).map(|thing| (thing.name, thing.count)).ok();
        assert_eq!(read(r#"{"name":"Ada","count":"7"}"#), Some(("Ada".into(), Some(7))));
        assert_eq!(read(r#"{"name":"Ada"}"#), Some(("Ada".into(), None)));
        assert_eq!(read(r#"{"count":7}"#), None);
        assert_eq!(read(r#"{"name":"Ada","count":10}"#), None);
    }
}
