//! Preconditions on every route with an `ETag`, and the `Cache-Control` of each response (RFC 9110 §13, RFC 9111).

use reqwest::Method;
use serde_json::json;

use crate::harness::{
    http::{HttpResponse, send, send_raw},
    process::start_worker,
    system::{System, webhook},
};

const API_KEY: &str = "your-secret-api-key-here";
const ADMIN_KEY: &str = "your-admin-api-key-here";

/// Registers a user and creates an item. Returns the user's token and the item's path.
async fn create_item(system: &System) -> (String, String) {
    let user = json!({"email": "ada@example.com", "password": "correct horse battery", "full_name": "Ada"});
    assert_eq!(send(system.request(Method::POST, "/api/v1/users/register").json(&user)).await.status, 201);
    let token = send(system.request(Method::POST, "/api/v1/users/login").json(&user)).await.json();
    let token = token["access_token"].as_str().expect("a token").to_owned();
    let created = system.request(Method::POST, "/api/v1/items").bearer_auth(&token).json(&json!({"title": "Kettle"}));
    let path = send(created).await.header("location").to_owned();
    (token, path)
}

#[tokio::test]
async fn routes_with_an_etag_evaluate_every_precondition() {
    let system = System::start(&[]).await;
    let (token, item) = create_item(&system).await;
    system.send_webhook("t").await;

    for path in [&*item, "/v1/transactions/t", "/openapi.json", "/docs", "/redoc"] {
        let tag = send(system.get(path)).await.header("etag").to_owned();
        let weak = format!("W/{tag}");
        for (name, value, status) in [
            ("if-none-match", &*tag, 304),
            ("if-none-match", &weak, 304),
            ("if-none-match", "*", 304),
            ("if-none-match", "\"other\"", 200),
            ("if-match", &tag, 200),
            ("if-match", "*", 200),
            ("if-match", &weak, 412),
            ("if-match", "\"other\"", 412),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let case = format!("{method} {path} {name}: {value}");
                let response = send(system.request(method, path).header(name, value)).await;
                assert_eq!(response.status, status, "{case}: {response:?}");
                if status == 304 {
                    assert!(!response.headers.contains_key("content-length"), "{case}: {response:?}");
                    assert_eq!(response.header("etag"), tag, "{case}");
                }
            }
            // Sent as raw bytes, because a client library may normalise the headers.
            let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\nConnection: close\r\n\r\n");
            let head = send_raw(&system.api.url, request.as_bytes()).await;
            assert_eq!((head.status, head.headers.contains_key("content-length")), (status, status != 304), "{head:?}");
        }
    }

    let change = |method: Method, headers: &[(&str, &str)]| {
        let request = system.request(method, &item).bearer_auth(&token).json(&json!({"title": "Changed"}));
        send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
    };
    for method in [Method::PUT, Method::DELETE] {
        for headers in [
            &[("if-none-match", "*")][..],
            &[("if-none-match", "\"1\"")],
            &[("if-none-match", "W/\"1\"")],
            &[("if-none-match", "\"7\", \"1\"")],
            &[("if-match", "\"1\""), ("if-none-match", "*")],
            &[("if-match", "\"2\""), ("if-none-match", "\"2\"")],
            &[("if-match", "W/\"1\"")],
        ] {
            change(method.clone(), headers).await.assert_problem(412, &format!("{method} {headers:?}"));
        }
    }
    assert_eq!(send(system.get(&item)).await.json()["title"], "Kettle", "the refused requests changed nothing");
    assert_eq!(change(Method::PUT, &[("if-match", "\"1\""), ("if-none-match", "\"2\"")]).await.status, 200);
    assert_eq!(change(Method::DELETE, &[("if-none-match", "\"1\"")]).await.status, 204);
}

fn cache_control(response: &HttpResponse) -> &str {
    response.header("cache-control")
}

#[tokio::test]
async fn responses_state_their_caching_policy() {
    let system = System::start(&[("PROCESSING_DELAY_SECONDS", "3600")]).await;
    let (token, item) = create_item(&system).await;
    let sent = send(system.post_webhook(webhook("t").to_string())).await;
    assert_eq!((sent.status, cache_control(&sent)), (202, "no-store"));

    // Routes behind a key, with a valid key, a wrong key, and no key.
    for (path, header, key) in [
        ("/interest_rate", "api_key", API_KEY),
        ("/interest_rate/history", "api_key", API_KEY),
        ("/simple_price?assets=bitcoin", "x-api-key", API_KEY),
        ("/market_chart", "x-api-key", API_KEY),
        ("/logs/export", "x-api-key", ADMIN_KEY),
        ("/interest_rate", "api_key", "wrong"),
        ("/logs/export", "x-api-key", "wrong"),
        ("/interest_rate", "x-unrelated", "none"),
        (&*item, "authorization", &format!("Bearer {token}")),
    ] {
        let response = send(system.get(path).header(header, key)).await;
        assert_eq!(cache_control(&response), "private, no-store", "{path} {header}: {response:?}");
        assert!(response.header("vary").contains("X-API-Key"), "{path} {header}: {response:?}");
    }
    for path in [
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/nowhere",
        "/v1/transactions",
        "/v1/transactions/unknown",
        "/api/v1/items",
        "/api/v1/search/items?q=kettle",
        "/api/v1/check",
    ] {
        assert_eq!(cache_control(&send(system.get(path)).await), "no-store", "{path}");
    }
    for path in [&*item, "/docs", "/redoc", "/openapi.json"] {
        let first = send(system.get(path)).await;
        let again = send(system.get(path).header("if-none-match", first.header("etag"))).await;
        assert_eq!(
            [(first.status, cache_control(&first)), (again.status, cache_control(&again))],
            [(200, "no-cache"), (304, "no-cache")]
        );
    }

    let get_transaction = || send(system.get("/v1/transactions/t"));
    let processing = get_transaction().await;
    assert_eq!((&processing.json()["status"], cache_control(&processing)), (&json!("PROCESSING"), "private, no-store"));
    let tag = processing.header("etag");
    let unchanged = send(system.get("/v1/transactions/t").header("if-none-match", tag)).await;
    assert_eq!((unchanged.status, cache_control(&unchanged)), (304, "private, no-store"));
    sqlx::query("UPDATE apalis.jobs SET run_at = now()").execute(&system.database.pool().await).await.unwrap();
    let _worker = start_worker(&system.database.url, &[]).await;
    let settled = send(system.get("/v1/transactions/t?wait=30")).await;
    assert_eq!((&settled.json()["status"], cache_control(&settled)), (&json!("PROCESSED"), "no-cache"), "{settled:?}");
}

#[tokio::test]
async fn json_responses_end_with_a_newline() {
    let system = System::start(&[]).await;
    let (_, item) = create_item(&system).await;
    for path in [
        "/",
        "/livez",
        "/nowhere",
        "/v1/transactions",
        "/v1/transactions?limit=x",
        "/api/v1/items",
        &item,
        "/api/v1/check",
        "/api/v1/search/items?q=kettle",
        "/openapi.json",
        "/interest_rate",
    ] {
        let response = send(system.get(path)).await;
        assert!(response.text.ends_with("}\n") || response.text.ends_with("]\n"), "{path}: {response:?}");
        assert_eq!(response.header("content-length"), response.text.len().to_string(), "{path}");
    }
}
