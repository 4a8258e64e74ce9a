//! Which page may do what, and what no answer says.

use poem::Endpoint;
use poem_openapi::{OpenApi, payload::PlainText};

use super::*;
use crate::{
    problem::{Fails, Problem, Statuses},
    routes::Routes,
};

const OURS: &str = "https://app.example.com";

struct Things;

struct Failing;

impl Statuses for Failing {
    const ALL: &'static [u16] = &[422, 503];
}

#[OpenApi]
impl Things {
    #[oai(path = "/things", method = "get")]
    async fn list(&self) -> PlainText<&'static str> {
        PlainText("all")
    }

    #[oai(path = "/things", method = "post")]
    async fn create(&self) -> Result<PlainText<&'static str>, Fails<Failing>> {
        Err(Problem::invalid(Vec::new()).into())
    }

    #[oai(path = "/things/:id", method = "delete")]
    async fn delete(&self) -> Result<PlainText<&'static str>, Fails<Failing>> {
        Err(Problem::unavailable("down").into())
    }
}

fn routes(origins: &str) -> Routes {
    let mut vars = EnvReader::from_pairs(&[("CORS_ORIGINS", origins)]);
    let origins = Origins::read(&mut vars, Environment::Dev);
    Routes::new(Things, Vec::new()).open_to(&vars.finish(origins).expect("valid"))
}

async fn call(routes: &Routes, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = Request::builder().method(method).uri_str(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    routes.get_response(request.finish()).await
}

/// The names of the headers that only browsers read.
fn for_browsers(response: &Response) -> Vec<&str> {
    response.headers().keys().map(|name| name.as_str()).filter(|name| name.starts_with("access-control-")).collect()
}

#[tokio::test]
async fn a_preflight_names_the_methods_of_its_path() {
    let routes = routes(&format!("http://localhost:3000, {OURS}"));
    for (path, methods) in [("/things", "GET, POST, HEAD, OPTIONS"), ("/things/7", "DELETE, OPTIONS")] {
        for origin in [OURS, "http://localhost:3000"] {
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
async fn every_answer_to_an_origin_that_may_call_says_so() {
    let routes = routes(OURS);
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
        let response = call(&routes, method.clone(), path, &[("origin", OURS)]).await;
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert_eq!(for_browsers(&response), ["access-control-allow-origin", "access-control-expose-headers"]);
        assert_eq!(response.header("access-control-allow-origin"), Some(OURS), "{method} {path}");
        assert_eq!(response.header("access-control-expose-headers"), Some(RESPONSE_HEADERS), "{method} {path}");
        assert_eq!(response.header("vary"), Some("Origin"), "{method} {path}");
    }
    let too_long = [("origin", OURS), ("content-length", "1048577")];
    let response = call(&routes, Method::POST, "/things", &too_long).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(response.header("access-control-allow-origin"), Some(OURS));
}

#[tokio::test]
async fn a_foreign_origin_gets_its_answer_and_no_permission() {
    let routes = routes(OURS);
    let foreign = ["https://evil.example.com", "null", "http://app.example.com", "https://app.example.com:8443", ""];
    for origin in foreign.into_iter().chain(["https://app.example.com.evil.net", "HTTPS://APP.EXAMPLE.COM", "*"]) {
        let response = call(&routes, Method::GET, "/things", &[("origin", origin)]).await;
        assert_eq!((response.status(), for_browsers(&response)), (StatusCode::OK, vec![]), "{origin}");
        assert_eq!(response.header("vary"), Some("Origin"), "{origin}");
        let asked = [("origin", origin), ("access-control-request-method", "GET")];
        let response = call(&routes, Method::OPTIONS, "/things", &asked).await;
        assert_eq!((response.status(), for_browsers(&response)), (StatusCode::NO_CONTENT, vec![]), "{origin}");
    }
    let response = call(&routes, Method::GET, "/things", &[]).await;
    assert_eq!(for_browsers(&response), Vec::<&str>::new());
    assert_eq!(response.header("vary"), Some("Origin"), "a cache may keep this one too");
}

#[tokio::test]
async fn unless_origins_are_named_no_answer_says_anything() {
    let asked = [("origin", OURS), ("access-control-request-method", "GET")];
    for method in [Method::GET, Method::OPTIONS] {
        let response = call(&routes(""), method, "/things", &asked).await;
        assert_eq!((for_browsers(&response), response.header("vary")), (vec![], None));
    }
}

#[tokio::test]
async fn any_origin_is_any() {
    let response = call(&routes("*"), Method::GET, "/things", &[("origin", "null")]).await;
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("vary"), None, "the answer is the same for all");
    let response = call(&routes("*"), Method::GET, "/things", &[]).await;
    assert_eq!(for_browsers(&response), Vec::<&str>::new());
}

#[test]
fn reads_origins_as_browsers_write_them() {
    for origin in
        [OURS, "http://localhost:3000", "http://127.0.0.1:8000", "http://[::1]:8000", "https://xn--mnchen-3ya.example"]
    {
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
fn wrong_origins_stop_the_start_and_any_origin_does_in_prod() {
    let read = |text: &str, environment| {
        let mut vars = EnvReader::from_pairs(&[("CORS_ORIGINS", text)]);
        let origins = Origins::read(&mut vars, environment);
        vars.finish(origins).map_err(|problems| problems.to_string())
    };
    let these = |origins: &[&str]| Ok(Origins::These(origins.iter().map(|&origin| origin.into()).collect()));
    assert_eq!(read("", Environment::Prod), Ok(Origins::None));
    assert_eq!(
        read(&format!(" {OURS} ,http://localhost:3000 "), Environment::Prod),
        these(&[OURS, "http://localhost:3000"])
    );
    assert_eq!(read("*", Environment::Dev), Ok(Origins::Any));
    assert_eq!(read("*", Environment::Test), Ok(Origins::Any));
    for (text, environment) in
        [("*", Environment::Prod), ("*,https://a.example", Environment::Dev), ("https://a.example,", Environment::Dev)]
    {
        let problem = read(text, environment).expect_err(text);
        assert!(problem.starts_with("CORS_ORIGINS: must ") && problem.contains("such as CORS_ORIGINS="), "{problem}");
    }
}
