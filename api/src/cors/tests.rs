//! Tests of CORS: allowed and foreign origins, preflights, and configuration.

use poem::Endpoint;
use poem_openapi::{OpenApi, payload::PlainText};
use serde_json::Value;

use super::*;
use crate::{
    problem::{Failure, Problem, errors},
    routes::Routes,
};

const ALLOWED: &str = "https://app.example.com";

struct TestApi;

errors! {
    InvalidOrUnavailable: [422, 503];
}

#[OpenApi]
impl TestApi {
    #[oai(path = "/things", method = "get")]
    async fn list(&self) -> PlainText<&'static str> {
        PlainText("all")
    }

    #[oai(path = "/things", method = "post")]
    async fn create(&self) -> Result<PlainText<&'static str>, Failure<InvalidOrUnavailable>> {
        Err(Problem::invalid(Vec::new()).into())
    }

    #[oai(path = "/things/:id", method = "delete")]
    async fn delete(&self) -> Result<PlainText<&'static str>, Failure<InvalidOrUnavailable>> {
        Err(Problem::unavailable("down").into())
    }
}

fn routes(origins: &str) -> Routes {
    let mut vars = EnvReader::from_pairs(&[("CORS_ORIGINS", origins)]);
    let origins = AllowedOrigins::read(&mut vars, Environment::Dev);
    Routes::new(TestApi, Vec::new()).with_cors(&vars.finish(origins).expect("valid"))
}

async fn call(routes: &Routes, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = Request::builder().method(method).uri_str(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    routes.get_response(request.finish()).await
}

/// The names of the CORS headers of a response.
fn cors_headers(response: &Response) -> Vec<&str> {
    response.headers().keys().map(|name| name.as_str()).filter(|name| name.starts_with("access-control-")).collect()
}

#[tokio::test]
async fn a_preflight_names_the_methods_of_its_path() {
    let routes = routes(&format!("http://localhost:3000, {ALLOWED}"));
    for (path, methods) in [("/things", "GET, POST, HEAD, OPTIONS"), ("/things/7", "DELETE, OPTIONS")] {
        for origin in [ALLOWED, "http://localhost:3000"] {
            let asked = [
                ("origin", origin),
                ("access-control-request-method", "DELETE"),
                ("access-control-request-headers", "api_key"),
                ("content-length", "99999999"),
            ];
            let response = call(&routes, Method::OPTIONS, path, &asked).await;
            assert_eq!(response.status(), StatusCode::NO_CONTENT, "{path}");
            assert_eq!(response.header("access-control-allow-origin"), Some(origin));
            assert_eq!(response.header("access-control-allow-methods"), Some(methods));
            assert_eq!(response.header("access-control-allow-headers"), Some(REQUEST_HEADERS));
            assert_eq!(response.header("access-control-max-age"), Some("7200"));
            assert_eq!(response.header("vary"), Some("Origin"));
            assert!(response.header("access-control-allow-credentials").is_none());
            assert!(response.header("x-correlation-id").is_some());
        }
    }
}

#[tokio::test]
async fn every_response_to_an_allowed_origin_has_cors_headers() {
    let routes = routes(ALLOWED);
    let cases = [
        (Method::GET, "/things", 200),
        (Method::HEAD, "/things", 200),
        (Method::POST, "/things", 422),
        (Method::DELETE, "/things/7", 503),
        (Method::PUT, "/things", 405),
        (Method::GET, "/nothing", 404),
        (Method::GET, "/things/%ff/x", 404),
        (Method::OPTIONS, "/things", 204),
    ];
    for (method, path, status) in cases {
        let response = call(&routes, method.clone(), path, &[("origin", ALLOWED)]).await;
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert_eq!(cors_headers(&response), ["access-control-allow-origin", "access-control-expose-headers"]);
        assert_eq!(response.header("access-control-allow-origin"), Some(ALLOWED), "{method} {path}");
        assert_eq!(response.header("access-control-expose-headers"), Some(RESPONSE_HEADERS), "{method} {path}");
        assert_eq!(response.header("vary"), Some("Origin"), "{method} {path}");
    }
    let too_long = [("origin", ALLOWED), ("content-length", "1048577")];
    let response = call(&routes, Method::POST, "/things", &too_long).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(response.header("access-control-allow-origin"), Some(ALLOWED));
}

#[tokio::test]
async fn a_foreign_origin_gets_a_response_without_permission() {
    let routes = routes(ALLOWED);
    let foreign = ["https://evil.example.com", "null", "http://app.example.com", "https://app.example.com:8443", ""];
    for origin in foreign.into_iter().chain(["https://app.example.com.evil.net", "HTTPS://APP.EXAMPLE.COM", "*"]) {
        let response = call(&routes, Method::GET, "/things", &[("origin", origin)]).await;
        assert_eq!((response.status(), cors_headers(&response)), (StatusCode::OK, vec![]), "{origin}");
        assert_eq!(response.header("vary"), Some("Origin"), "{origin}");
        let asked = [("origin", origin), ("access-control-request-method", "GET")];
        let response = call(&routes, Method::OPTIONS, "/things", &asked).await;
        assert_eq!((response.status(), cors_headers(&response)), (StatusCode::NO_CONTENT, vec![]), "{origin}");
    }
    let response = call(&routes, Method::GET, "/things", &[]).await;
    assert_eq!(cors_headers(&response), Vec::<&str>::new());
    assert_eq!(response.header("vary"), Some("Origin"), "a cache may store this response too");
}

#[tokio::test]
async fn without_allowed_origins_no_response_has_cors_headers() {
    let asked = [("origin", ALLOWED), ("access-control-request-method", "GET")];
    for method in [Method::GET, Method::OPTIONS] {
        let response = call(&routes(""), method, "/things", &asked).await;
        assert_eq!((cors_headers(&response), response.header("vary")), (vec![], None));
    }
}

#[tokio::test]
async fn a_star_allows_every_origin() {
    let response = call(&routes("*"), Method::GET, "/things", &[("origin", "null")]).await;
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("vary"), None, "the response is the same for all origins");
    let response = call(&routes("*"), Method::GET, "/things", &[]).await;
    assert_eq!(cors_headers(&response), Vec::<&str>::new());
}

/// The headers of requests and of responses in `openapi.json`.
fn documented_headers() -> [Vec<String>; 2] {
    let document: Value = serde_json::from_str(include_str!("../../openapi.json")).expect("JSON");
    let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for (_, operation) in members(&document["paths"]).iter().flat_map(|(_, path)| members(path)) {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let headers = parameters.filter(|parameter| parameter["in"] == "header");
        sent.extend(headers.filter_map(|header| header["name"].as_str().map(str::to_owned)));
        for response in members(&operation["responses"]).values() {
            received.extend(members(&response["headers"]).into_iter().map(|(name, _)| name));
        }
    }
    for (_, scheme) in members(&document["components"]["securitySchemes"]) {
        // The scheme of tokens has no header of its own.
        sent.push(scheme["name"].as_str().unwrap_or("Authorization").to_owned());
    }
    [sent, received]
}

#[test]
fn pages_may_send_and_read_every_documented_header() {
    // Pages may read these headers of every response.
    let always = "Cache-Control, Content-Language, Content-Length, Content-Type, Expires, Last-Modified, Pragma";
    let [sent, received] = documented_headers();
    assert!(!sent.is_empty() && !received.is_empty());
    let (to_send, to_read) = (REQUEST_HEADERS.to_owned(), format!("{RESPONSE_HEADERS}, {always}"));
    for (documented, allowed) in [(sent, to_send), (received, to_read)] {
        for name in documented {
            assert!(allowed.split(", ").any(|other| other.eq_ignore_ascii_case(&name)), "{name} is missing: {allowed}");
        }
    }
}

#[test]
fn accepts_origins_in_the_form_that_browsers_send() {
    for origin in [
        ALLOWED,
        "http://localhost:3000",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
        "https://xn--mnchen-3ya.example",
    ] {
        assert!(is_origin(origin), "{origin}");
    }
    for wrong in [
        "",
        "*",
        "null",
        "app.example.com",
        "app.example.com:443",
        "https://",
        "https://app.example.com/",
        "https://app.example.com/x",
        "https://app.example.com?x",
        "https://app.example.com:443",
        "http://app.example.com:80",
        "http://app.example.com:",
        "http://app.example.com:08000",
        "http://app.example.com:65536",
        "https://App.example.com",
        "HTTPS://app.example.com",
        "https://*.example.com",
        "https://münchen.example",
        "https://user@app.example.com",
        "ftp://app.example.com",
        "https://app.example.com https://b.example.com",
    ] {
        assert!(!is_origin(wrong), "{wrong}");
    }
}

#[test]
fn invalid_origins_are_refused_and_a_star_is_refused_in_prod() {
    let read = |text: &str, environment| {
        let mut vars = EnvReader::from_pairs(&[("CORS_ORIGINS", text)]);
        let origins = AllowedOrigins::read(&mut vars, environment);
        vars.finish(origins).map_err(|problems| problems.to_string())
    };
    let listed = |origins: &[&str]| Ok(AllowedOrigins::Listed(origins.iter().map(|&origin| origin.into()).collect()));
    assert_eq!(read("", Environment::Prod), Ok(AllowedOrigins::None));
    assert_eq!(
        read(&format!(" {ALLOWED} ,http://localhost:3000 "), Environment::Prod),
        listed(&[ALLOWED, "http://localhost:3000"])
    );
    assert_eq!(read("*", Environment::Dev), Ok(AllowedOrigins::Any));
    assert_eq!(read("*", Environment::Test), Ok(AllowedOrigins::Any));
    for (text, environment) in
        [("*", Environment::Prod), ("*,https://a.example", Environment::Dev), ("https://a.example,", Environment::Dev)]
    {
        let problem = read(text, environment).expect_err(text);
        assert!(problem.starts_with("CORS_ORIGINS: must ") && problem.contains("such as CORS_ORIGINS="), "{problem}");
    }
}
