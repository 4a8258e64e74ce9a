//! Unit tests of list bodies: accepted forms, and the errors for all others.

use futures_util::FutureExt;
use poem::{Endpoint, Request, error::ResponseError, http::Method};
use poem_openapi::{OpenApi, OpenApiService, payload::PlainText};
use serde_json::{Value, json};

use super::*;
use crate::{
    middleware::body_limit,
    problem::{Failure, errors},
    routes::Routes,
    validation::{Body, Integer, Text, request},
};

#[derive(Debug, PartialEq, Eq)]
struct Asset {
    id: String,
    rate: u8,
}

request! {
    /// An asset.
    #[example({"id": "a", "rate": 1})]
    AssetRequest for Asset {
        id: Text<1, 5>,
        rate: Integer<0, 255, u8>,
    }
}

/// The status and `detail` of a body that is rejected.
fn rejection(body: &[u8]) -> (u16, Value) {
    let problem = List::<Asset>::parse(body).expect_err("should be rejected");
    let sent = problem.to_response(None).into_body().into_vec().now_or_never().and_then(Result::ok);
    let json: Value = serde_json::from_slice(&sent.unwrap_or_default()).unwrap_or_default();
    (problem.status().as_u16(), json["detail"].clone())
}

fn errors(body: &str) -> Vec<Value> {
    let (status, detail) = rejection(body.as_bytes());
    assert_eq!(status, 422);
    detail.as_array().cloned().unwrap_or_default()
}

#[test]
fn reads_every_element() {
    let body = br#" [ {"id":"a","rate":1}, {"rate":" 2 ","id":"b","more":[{}]},{"id":"c","rate":true} ] "#;
    let List(assets) = List::<Asset>::parse(body).expect("valid");
    let read: Vec<_> = assets.iter().map(|asset| (&*asset.id, asset.rate)).collect();
    assert_eq!(read, [("a", 1), ("b", 2), ("c", 1)]);
}

#[test]
fn reports_all_failing_fields_of_all_elements() {
    let body = r#"[{"id":"","rate":-1},{"id":"ok","rate":1},7,{"id":"a","id":"a","rate":null}, {}]"#;
    let found: Vec<_> = errors(body).iter().map(|error| (error["loc"].clone(), error["type"].clone())).collect();
    let expected = [
        (json!(["body", 0, "id"]), "string_too_short"),
        (json!(["body", 0, "rate"]), "greater_than_equal"),
        (json!(["body", 2]), "model_attributes_type"),
        (json!(["body", 3, "id"]), "value_error"),
        (json!(["body", 3, "rate"]), "int_type"),
        (json!(["body", 4, "id"]), "missing"),
        (json!(["body", 4, "rate"]), "missing"),
    ];
    assert_eq!(found, expected.map(|(loc, kind)| (loc, kind.into())));
    let negative = json!({
        "loc": ["body", 0, "rate"], "msg": "Input should be greater than or equal to 0",
        "type": "greater_than_equal", "input": -1, "ctx": {"ge": 0},
    });
    assert_eq!(errors(body)[1], negative);
    assert_eq!(errors(body)[5]["input"], json!({}), "the input of a missing field is its element");
}

#[test]
fn requires_a_non_empty_list() {
    let empty = json!([{
        "loc": ["body"], "msg": "List should have at least 1 item after validation, not 0", "type": "too_short",
        "input": [], "ctx": {"field_type": "List", "min_length": 1, "actual_length": 0},
    }]);
    assert_eq!(rejection(b" [ ] "), (422, empty));
    for (body, input) in [("{}", json!({})), ("null", Value::Null), ("\"[]\"", json!("[]")), (" 7", json!(7))] {
        let error =
            json!([{"loc": ["body"], "msg": "Input should be a valid list", "type": "list_type", "input": input}]);
        assert_eq!(rejection(body.as_bytes()), (422, error), "{body}");
    }
    let missing = json!([{"loc": ["body"], "msg": "Field required", "type": "missing", "input": null}]);
    assert_eq!(rejection(b""), (422, missing));
}

#[test]
fn a_body_that_is_not_json_is_400_despite_other_errors() {
    for body in [
        &b" "[..],
        b"[",
        b"[{}",
        b"[{},]",
        b"[{}]x",
        b"[7] [7]",
        b"[7,{\"a\":1,}]",
        b"[{\"\\ud800\":1}]",
        b"[\"\xff\"]",
        b"\xff",
        b"nul",
    ] {
        assert_eq!(rejection(body).0, 400, "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn survives_deep_wide_and_repetitive_bodies() {
    let error_count = |body: String| errors(&body).len();
    assert_eq!(error_count(format!("[{}]", vec!["{}"; 349_525].join(","))), MAX_ERRORS);
    assert_eq!(error_count(format!("[{}]", vec!["7"; 524_287].join(","))), MAX_ERRORS);
    assert_eq!(error_count(format!("[{{{}}}]", vec![r#""a":1"#; 170_000].join(","))), MAX_ERRORS);
    assert_eq!(error_count(format!("[{}{}]", "[".repeat(500_000), "]".repeat(500_000))), 1);
    assert_eq!(rejection("[".repeat(1_000_000).as_bytes()).0, 400);
    let broken = format!("[{},", vec!["7"; 500_000].join(","));
    assert_eq!(rejection(broken.as_bytes()).0, 400, "the maximum number of errors, but not JSON");
    let long = format!(r#"[{}]"#, vec![r#"{"id":"a","rate":1}"#; 52_000].join(","));
    assert_eq!(List::<Asset>::parse(long.as_bytes()).map(|List(assets)| assets.len()).ok(), Some(52_000));
}

struct Assets;

errors! {
    Taking: [400, 413, 415, 422];
}

#[OpenApi]
impl Assets {
    #[oai(path = "/assets", method = "post")]
    async fn post(&self, body: Body<List<Asset>>) -> Result<PlainText<String>, Failure<Taking>> {
        let List(assets) = body.read()?;
        Ok(PlainText(format!("{} in {} bytes", assets.len(), body.raw().len())))
    }
}

#[tokio::test]
async fn an_operation_accepts_a_list() {
    let routes = Routes::new(Assets, Vec::new());
    let post = async |content_type: &str, body: &[u8]| {
        let request = Request::builder().method(Method::POST).uri_str("/assets").content_type(content_type);
        let mut response = routes.get_response(request.body(body.to_vec())).await;
        (response.status().as_u16(), response.take_body().into_string().await.unwrap_or_default())
    };
    let body = br#"[{"id":"a","rate":1}]"#;
    assert_eq!(post("application/json", body).await, (200, "1 in 21 bytes".into()));
    for (content_type, body, status) in [
        ("application/json", &b"["[..], 400),
        ("application/json", &[b' '; body_limit::MAX_BODY_BYTES + 1], 413),
        ("text/plain", body, 415),
        ("application/json", b"[]", 422),
    ] {
        assert_eq!(post(content_type, body).await.0, status);
    }
}

#[test]
fn the_openapi_document_describes_a_list() {
    let spec = OpenApiService::new(Assets, "t", "1").spec();
    let document: Value = serde_json::from_str(&spec).expect("JSON");
    let body = &document["paths"]["/assets"]["post"]["requestBody"];
    let list = json!({"type": "array", "items": {"$ref": "#/components/schemas/AssetRequest"}, "minItems": 1});
    assert_eq!((&body["content"]["application/json"]["schema"], &body["required"]), (&list, &json!(true)));
}
