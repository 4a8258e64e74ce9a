//! Unit tests of JSON bodies: accepted forms, and the errors for all others.

use jobs::transactions::Amount;
use poem::{Endpoint, http::Method};
use poem_openapi::{OpenApi, payload::PlainText};
use serde_json::{Value, json};

use super::*;
use crate::{
    problem::{Failure, errors},
    routes::Routes,
    validation::{Integer, Text, request},
};

struct Named(String);

request! {
    /// A name.
    #[example({"name": "Ada"})]
    NameRequest for Named { name: Text<1, 5>, } => Ok(Self(name))
}

#[derive(Clone)]
struct Names;

errors! {
    Naming: [400, 413, 415, 422];
}

#[OpenApi]
impl Names {
    #[oai(path = "/names", method = "post")]
    async fn post(&self, body: Body<Named>) -> Result<PlainText<String>, Failure<Naming>> {
        Ok(PlainText(body.read()?.0))
    }
}

#[tokio::test]
async fn each_kind_of_invalid_body_has_its_status() {
    let post = async |content_type: Option<&str>, body: &'static [u8]| {
        let request = Request::builder().method(Method::POST).uri_str("/names");
        let request = content_type.into_iter().fold(request, |request, value| request.content_type(value));
        let mut response = Routes::new(Names, Vec::new()).get_response(request.body(body)).await;
        (response.status().as_u16(), response.take_body().into_string().await.unwrap_or_default())
    };
    assert_eq!(post(None, br#"{"name":"Ada"}"#).await, (200, "Ada".into()));
    assert_eq!(post(Some("application/json"), br#"{"x":[],"name":"Ada"}"#).await, (200, "Ada".into()));
    for (content_type, body, status) in [
        (None, &b"{"[..], 400),
        (None, b"\xff", 400),
        (None, b"", 422),
        (None, b"{}", 422),
        (None, b"[]", 422),
        (None, br#"{"name":"Ada","name":"Ada"}"#, 422),
        (Some("text/plain"), br#"{"name":"Ada"}"#, 415),
        (None, &[b' '; body_limit::MAX_BODY_BYTES + 1], 413),
    ] {
        assert_eq!(post(content_type, body).await.0, status, "{}", String::from_utf8_lossy(body).trim());
    }
}

/// `(loc, type, msg)` of every error that `read` records for a body.
fn errors(body: &[u8], read: impl FnOnce(&mut Fields<'_>)) -> Vec<(Value, String, String)> {
    let errors = match Fields::parse(body, None) {
        Ok(mut fields) => {
            read(&mut fields);
            fields.errors
        }
        Err(problem) => panic!("{problem}"),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let errors = errors.iter().map(|error| serde_json::to_value(error).unwrap_or_default());
    errors.map(|json| (json["loc"].clone(), text(&json["type"]), text(&json["msg"]))).collect()
}

/// The status and `detail` of a body that is rejected.
fn rejection(body: &[u8]) -> (StatusCode, Value) {
    use poem::error::ResponseError;
    let problem = Fields::parse(body, None).expect_err("should not be an object");
    let response = problem.to_response(None);
    let body = futures_util::FutureExt::now_or_never(response.into_body().into_vec()).and_then(Result::ok);
    let json: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    (problem.status(), json["detail"].clone())
}

#[test]
fn reports_all_failing_fields_at_once() {
    let found = errors(br#"{"id":"","amount":-1,"amount":2,"count":"ten"}"#, |fields| {
        assert_eq!(fields.value::<Text<1, 255>>("id"), None);
        assert_eq!(fields.value::<Text<1, 255>>("source"), None);
        assert_eq!(fields.value::<Amount>("amount"), None);
        assert_eq!(fields.value::<Integer<0, 9>>("count"), None);
        assert_eq!(fields.value::<Option<Text<1, 255>>>("note"), Some(None));
    });
    let expected = [
        ("amount", "value_error", "Value error, duplicate key"),
        ("id", "string_too_short", "String should have at least 1 character"),
        ("source", "missing", "Field required"),
        ("amount", "greater_than", "Input should be greater than 0"),
        ("count", "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
    ];
    let expected: Vec<_> =
        expected.map(|(name, kind, msg)| (json!(["body", name]), kind.to_owned(), msg.to_owned())).into();
    assert_eq!(found, expected);
}

#[test]
fn echoes_the_input_exactly() {
    let mut fields = Fields::parse(br#"{"amount":-1.10000000000000000000000000}"#, None).expect("an object");
    fields.value::<Amount>("amount");
    let json = serde_json::to_string(&fields.errors).unwrap_or_default();
    assert!(json.contains(r#""input":-1.10000000000000000000000000,"ctx":{"gt":0}"#), "{json}");
}

#[test]
fn requires_an_object() {
    let whole = |kind: &str, msg: &str, input: Value| {
        (StatusCode::UNPROCESSABLE_ENTITY, json!([{"loc": ["body"], "msg": msg, "type": kind, "input": input}]))
    };
    let msg = "Input should be a valid dictionary or object to extract fields from";
    assert_eq!(rejection(b""), whole("missing", "Field required", Value::Null));
    assert_eq!(rejection(b" [1] "), whole("model_attributes_type", msg, json!([1])));
    assert_eq!(rejection(b"null"), whole("model_attributes_type", msg, Value::Null));
    for broken in
        [&b" "[..], b"{", b"{}x", b"{\"a\":1,}", b"nul", b"\xff", b"{\"a\":\"\xff\"}", b"{'a':1}", b"{\"a\":NaN}"]
    {
        assert_eq!(rejection(broken).0, StatusCode::BAD_REQUEST, "{}", String::from_utf8_lossy(broken));
    }
}

#[test]
fn survives_deep_and_wide_bodies() {
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(500_000), "]".repeat(500_000));
    assert_eq!(errors(deep.as_bytes(), |fields| _ = fields.value::<Text<1, 9>>("a")).len(), 1);
    assert_eq!(rejection("[".repeat(1_000_000).as_bytes()).0, StatusCode::BAD_REQUEST);
    let wide = format!("{{{}}}", vec![r#""a":1"#; 100_000].join(","));
    assert_eq!(errors(wide.as_bytes(), |_| ()).len(), MAX_ERRORS);
}

#[test]
fn accepts_a_missing_or_json_content_type() {
    let declared = |name, value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, poem::http::HeaderValue::from_static(value));
        check_declared_as_json(&headers).is_ok()
    };
    assert!(check_declared_as_json(&HeaderMap::new()).is_ok());
    for json in
        ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json", "application/x+json;v=1"]
    {
        assert!(declared(header::CONTENT_TYPE, json), "{json}");
    }
    for other in ["text/plain", "application/xml", "text/x+json", "application/jsonp", "", "application/+jso"] {
        assert!(!declared(header::CONTENT_TYPE, other), "{other}");
    }
    assert!(declared(header::CONTENT_ENCODING, "identity"));
    assert!(!declared(header::CONTENT_ENCODING, "gzip"));
}

#[derive(Debug)]
struct Login;

impl FromJsonObject for Login {
    const NAME: &'static str = "Login";

    const SECRET: Option<&'static str> = Some("password");

    fn schema() -> MetaSchema {
        MetaSchema::new("object")
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let password = fields.value::<Text<8, 9>>("password");
        let name = fields.value::<Text<1, 5>>("name");
        fields.record_body_error(FieldError::value_error("not good as a whole"));
        password.and(name).map(|_| Self)
    }
}

/// The responses to an invalid body, read as one login and as a list of logins.
fn responses(body: &str) -> [String; 2] {
    let text = |problem: Problem| String::from_utf8(problem.to_json(None)).expect("UTF-8");
    [Login::parse(body.as_bytes()).expect_err("invalid"), List::<Login>::parse(body.as_bytes()).expect_err("invalid")]
        .map(text)
}

#[test]
fn secrets_are_not_echoed() {
    for body in [
        r#"{"password": "hunter2"}"#,
        r#"{"password": "hunter2", "password": "hunter2", "name": "Ada"}"#,
        r#"{"pass\u0077ord": "hunter2", "name": "Ada"}"#,
        r#"{"pasword": "hunter2", "pasword": "hunter2", "name": "Ada"}"#,
        r#"{"password": ["hunter2"], "name": {"password": "hunter2"}}"#,
        r#"{"password": "12345678", "name": ["hunter2"]}"#,
        r#"{"Password": "hunter2", "name": "Ada"}"#,
        r#"{"password": "hunter2hu", "name": "Ada"}"#,
        r#"[{"password": "hunter2"}]"#,
        r#"[["hunter2"], "hunter2", {"password": "hunter2", "name": "hunter2"}, {"password": "hunter2hu", "name": "A"}]"#,
        r#""hunter2""#,
        r#"{"password": "hunter2""#,
        r#"hunter2"#,
        "\u{feff}[{\"password\": \"hunter2\"}]",
    ] {
        for response in responses(body) {
            assert!(!response.contains("hunter2") || body.contains(r#""name": "hunter2""#), "{body}: {response}");
        }
    }
    let [response, _] = responses(r#"{"password": "hunter2", "name": "much too long"}"#);
    assert!(response.contains("much too long") && response.contains("at least 8 characters"), "{response}");
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let mark = "\u{feff}";
    let fields = |body: String| Fields::parse(body.as_bytes(), None).map(|fields| fields.errors.len());
    assert!(matches!(fields(format!("{mark}{{}}")), Ok(0)));
    assert!(matches!(fields(format!("{mark} {{}}")), Ok(0)));
    for (body, status) in [(format!("{mark}{mark}{{}}"), 400), (format!(" {mark}{{}}"), 400), (mark.to_owned(), 422)] {
        let problem = fields(body.clone()).expect_err("rejected");
        assert_eq!(poem::error::ResponseError::status(&problem).as_u16(), status, "{body:?}");
    }
    let listed = List::<Login>::parse(format!("{mark}[1]").as_bytes()).expect_err("not a login");
    assert_eq!(poem::error::ResponseError::status(&listed).as_u16(), 422, "read as a list");
}
