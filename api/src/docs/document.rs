//! Corrections of the framework's OpenAPI document: order of tags, exact bounds, rate-limit headers, and schemas that every
//! client generator can read.

use poem_openapi::registry::{MetaApi, MetaHeader, MetaOperation, MetaSchema, MetaSchemaRef};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{schema::inline, tags::Tag};

/// Completes all operations.
pub(super) fn complete_operations(mut apis: Vec<MetaApi>) -> Vec<MetaApi> {
    for operation in apis.iter_mut().flat_map(|api| &mut api.paths).flat_map(|path| &mut path.operations) {
        document_limits(operation);
        let params = operation.params.iter_mut().map(|param| &mut param.schema);
        let bodies = operation.request.iter_mut().flat_map(|request| &mut request.content);
        let responses = operation.responses.responses.iter_mut().flat_map(|response| &mut response.content);
        params.chain(bodies.chain(responses).map(|media| &mut media.schema)).for_each(simplify);
    }
    apis
}

/// Documents the rate-limit headers on all responses of an operation that may return 429.
fn document_limits(operation: &mut MetaOperation) {
    let responses = &mut operation.responses.responses;
    if !responses.iter().any(|response| response.status == Some(429)) {
        return;
    }
    for response in responses {
        let header = |name: &str, description: &str| MetaHeader {
            name: name.into(),
            description: Some(description.into()),
            required: response.status == Some(429),
            deprecated: false,
            schema: inline(MetaSchema::new("string")),
        };
        let policy = "Each limit that counted the request: its name, and `q` requests in `w` seconds.";
        let state = "The remaining quota of each limit: `r` requests now, and one more in `t` seconds, unless all `q` are there.";
        response.headers.extend([header("RATELIMIT-POLICY", policy), header("RATELIMIT", state)]);
    }
}

/// Simplifies a reference with its own description. Client generators follow a reference only if `allOf` contains nothing
/// else.
pub(super) fn simplify(schema: &mut MetaSchemaRef) {
    let MetaSchemaRef::Inline(schema) = schema else { return };
    simplify_parts(schema);
}

/// Simplifies all parts of a schema.
pub(super) fn simplify_parts(schema: &mut MetaSchema) {
    if schema.all_of.iter().any(|part| matches!(part, MetaSchemaRef::Reference(_))) {
        schema.all_of.retain(|part| matches!(part, MetaSchemaRef::Reference(_)));
    }
    let boxed = schema.items.iter_mut().chain(&mut schema.additional_properties).map(|part| &mut **part);
    let listed = schema.any_of.iter_mut().chain(&mut schema.one_of).chain(&mut schema.all_of);
    let properties = schema.properties.iter_mut().map(|(_, property)| property);
    boxed.chain(listed).chain(properties).for_each(simplify);
}

/// The framework's document, with its members in order.
#[derive(Deserialize, Serialize)]
struct Document<'a> {
    #[serde(borrow)]
    openapi: &'a RawValue,
    info: &'a RawValue,
    servers: &'a RawValue,
    tags: Vec<&'a RawValue>,
    paths: &'a RawValue,
    components: &'a RawValue,
}

#[derive(Deserialize)]
struct NamedTag {
    name: Tag,
}

/// Returns the document's text with tags in the order of [`Tag`] and with exact bounds.
pub(super) fn finish(spec: &str) -> String {
    let Ok(mut document) = serde_json::from_str::<Document<'_>>(spec) else { return spec.to_owned() };
    document.tags.sort_by_key(|tag| serde_json::from_str::<NamedTag>(tag.get()).ok().map(|tag| tag.name));
    let text = serde_json::to_string_pretty(&document).unwrap_or_else(|_| spec.to_owned());
    // The framework's bounds are binary floats, which round `i64::MAX` up by one.
    let inexact = serde_json::to_string(&(i64::MAX as f64)).unwrap_or_default();
    text.replace(&inexact, &i64::MAX.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bounds_are_exact() {
        let bounds = MetaSchema {
            minimum: Some(-i64::MAX as f64),
            maximum: Some(i64::MAX as f64),
            ..MetaSchema::new("integer")
        };
        let paths = serde_json::to_string(&bounds).expect("JSON");
        let spec = format!(r#"{{"openapi":"3","info":{{}},"servers":[],"tags":[],"paths":{paths},"components":{{}}}}"#);
        let text = finish(&spec);
        assert!(text.contains(r#""minimum":-9223372036854775807"#), "{text}");
        assert!(text.contains(r#""maximum":9223372036854775807"#), "{text}");
    }

    #[test]
    fn tags_are_in_order() {
        let spec = r#"{"openapi":"3","info":{},"servers":[],"tags":[{"name":"Health"},{"name":"Transactions"}],"paths":{},
            "components":{}}"#;
        let text: serde_json::Value = serde_json::from_str(&finish(spec)).expect("JSON");
        assert_eq!(text["tags"], json!([{"name": "Transactions"}, {"name": "Health"}]));
    }

    #[test]
    fn all_of_contains_only_the_reference() {
        let description = MetaSchema { description: Some("Why."), ..MetaSchema::ANY };
        let described = MetaSchemaRef::Reference("Thing".into()).merge(description);
        let mut list = MetaSchemaRef::Inline(Box::new(MetaSchema {
            items: Some(Box::new(described)),
            ..MetaSchema::new("array")
        }));
        simplify(&mut list);
        let expected = json!({"allOf": [{"$ref": "#/components/schemas/Thing"}], "description": "Why."});
        assert_eq!(serde_json::to_value(&list).expect("JSON")["items"], expected);
    }
}
