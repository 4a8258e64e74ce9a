//! What a browser's page on another site may do: nothing, unless `CORS_ORIGINS` names its origin.

use reqwest::Method;

use crate::harness::{
    database,
    http::{HttpResponse, send},
    process::{self, Api},
};

const OURS: &str = "https://app.example.com";

async fn from(api: &Api, method: Method, path: &str, origin: &str) -> HttpResponse {
    let request = process::http_client().request(method, format!("{}{path}", api.url)).header("origin", origin);
    send(request.header("access-control-request-method", "GET")).await
}

#[tokio::test]
async fn pages_of_named_origins_may_call_and_no_others() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[("CORS_ORIGINS", OURS)]).await;
    for (method, path, status) in [
        (Method::GET, "/api/v1/items", 200),
        (Method::GET, "/api/v1/items/1", 404),
        (Method::POST, "/api/v1/items", 401),
        (Method::POST, "/api/v1/users/login", 422),
        (Method::OPTIONS, "/api/v1/items", 204),
    ] {
        let answer = from(&api, method.clone(), path, OURS).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), OURS, "{method} {path}: {answer:?}");
        let answer = from(&api, method.clone(), path, "https://evil.example.com").await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control-")), "{answer:?}");
        assert!(answer.headers.get_all("vary").iter().any(|value| value == "Origin"), "{method} {path}: {answer:?}");
    }
    let preflight = from(&api, Method::OPTIONS, "/api/v1/items/1", OURS).await;
    assert_eq!(preflight.header("access-control-allow-methods"), "DELETE, GET, PUT, HEAD, OPTIONS");
}

#[tokio::test]
async fn unless_origins_are_named_no_page_may_call() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[]).await;
    for method in [Method::GET, Method::OPTIONS] {
        let answer = from(&api, method, "/api/v1/items", OURS).await;
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control-")), "{answer:?}");
        assert_eq!(answer.header("vary"), "", "{answer:?}");
    }
}
