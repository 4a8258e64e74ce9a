//! CORS: pages of other sites may call the API only if `CORS_ORIGINS` contains their origin.

use reqwest::Method;

use crate::harness::{
    database,
    http::{HttpResponse, send},
    process::{self, Api},
};

const ALLOWED: &str = "https://app.example.com";

/// Sends a request with an `Origin`.
async fn send_from(api: &Api, method: Method, path: &str, origin: &str) -> HttpResponse {
    let request = process::http_client().request(method, format!("{}{path}", api.url)).header("origin", origin);
    send(request.header("access-control-request-method", "GET")).await
}

#[tokio::test]
async fn only_pages_of_configured_origins_may_call() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[("CORS_ORIGINS", ALLOWED)]).await;
    for (method, path, status) in [
        (Method::GET, "/api/v1/items", 200),
        (Method::GET, "/api/v1/items/1", 404),
        (Method::POST, "/api/v1/items", 401),
        (Method::POST, "/api/v1/users/login", 422),
        (Method::OPTIONS, "/api/v1/items", 204),
    ] {
        let response = send_from(&api, method.clone(), path, ALLOWED).await;
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        assert_eq!(response.header("access-control-allow-origin"), ALLOWED, "{method} {path}: {response:?}");
        let response = send_from(&api, method.clone(), path, "https://evil.example.com").await;
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        assert!(!response.headers.keys().any(|name| name.as_str().starts_with("access-control-")), "{response:?}");
        assert!(
            response.headers.get_all("vary").iter().any(|value| value == "Origin"),
            "{method} {path}: {response:?}"
        );
    }
    let preflight = send_from(&api, Method::OPTIONS, "/api/v1/items/1", ALLOWED).await;
    assert_eq!(preflight.header("access-control-allow-methods"), "DELETE, GET, PUT, HEAD, OPTIONS");
}

#[tokio::test]
async fn without_configured_origins_no_page_may_call() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[]).await;
    for method in [Method::GET, Method::OPTIONS] {
        let response = send_from(&api, method, "/api/v1/items", ALLOWED).await;
        assert!(!response.headers.keys().any(|name| name.as_str().starts_with("access-control-")), "{response:?}");
        assert_eq!(response.header("vary"), "", "{response:?}");
    }
}
