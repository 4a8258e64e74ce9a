//! Preconditions on every route with an `ETag`, and what each answer says to caches (RFC 9110 §13, RFC 9111).

use reqwest::Method;
use serde_json::json;

use super::{System, WEBHOOKS, webhook};
use crate::harness::{
    http::{HttpResponse, send, send_raw},
    process::start_worker,
};

const API_KEY: &str = "your-secret-api-key-here";
const ADMIN_KEY: &str = "your-admin-api-key-here";

/// A user's token, and the path of an item of that user's.
async fn item(system: &System) -> (String, String) {
    let user = json!({"email": "ada@example.com", "password": "correct horse battery", "full_name": "Ada"});
    assert_eq!(send(system.call(Method::POST, "/api/v1/users/register").json(&user)).await.status, 201);
    let token = send(system.call(Method::POST, "/api/v1/users/login").json(&user)).await.json();
    let token = token["access_token"].as_str().expect("a token").to_owned();
    let created = system.call(Method::POST, "/api/v1/items").bearer_auth(&token).json(&json!({"title": "Kettle"}));
    let path = send(created).await.header("location").to_owned();
    (token, path)
}

#[tokio::test]
async fn every_precondition_holds_on_every_route_with_a_tag() {
    let system = System::start(&[]).await;
    let (token, item) = item(&system).await;
    assert_eq!(send(system.call(Method::POST, WEBHOOKS).json(&webhook("t"))).await.status, 202);

    for path in [&*item, "/v1/transactions/t", "/openapi.json", "/docs", "/redoc"] {
        let tag = send(system.call(Method::GET, path)).await.header("etag").to_owned();
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
                let answer = send(system.call(method, path).header(name, value)).await;
                assert_eq!(answer.status, status, "{case}: {answer:?}");
                if status == 304 {
                    assert!(!answer.headers.contains_key("content-length"), "{case}: {answer:?}");
                    assert_eq!(answer.header("etag"), tag, "{case}");
                }
            }
            // As the bytes are, which a library may tidy up.
            let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\nConnection: close\r\n\r\n");
            let bare = send_raw(&system.api.url, request.as_bytes()).await;
            assert_eq!((bare.status, bare.headers.contains_key("content-length")), (status, status != 304), "{bare:?}");
        }
    }

    let change = |method: Method, headers: &[(&str, &str)]| {
        let request = system.call(method, &item).bearer_auth(&token).json(&json!({"title": "Changed"}));
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
    assert_eq!(send(system.call(Method::GET, &item)).await.json()["title"], "Kettle", "nothing has changed it");
    assert_eq!(change(Method::PUT, &[("if-match", "\"1\""), ("if-none-match", "\"2\"")]).await.status, 200);
    assert_eq!(change(Method::DELETE, &[("if-none-match", "\"1\"")]).await.status, 204);
}

fn caching(answer: &HttpResponse) -> &str {
    answer.header("cache-control")
}

#[tokio::test]
async fn every_answer_says_what_caches_may_do() {
    let system = System::start(&[("PROCESSING_DELAY_SECONDS", "3600")]).await;
    let (token, item) = item(&system).await;
    let sent = send(system.call(Method::POST, WEBHOOKS).json(&webhook("t"))).await;
    assert_eq!((sent.status, caching(&sent)), (202, "no-store"));

    // Behind a key, whatever the key is worth.
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
        let answer = send(system.call(Method::GET, path).header(header, key)).await;
        assert_eq!(caching(&answer), "private, no-store", "{path} {header}: {answer:?}");
        assert!(answer.header("vary").contains("X-API-Key"), "{path} {header}: {answer:?}");
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
        assert_eq!(caching(&send(system.call(Method::GET, path)).await), "no-store", "{path}");
    }
    for path in [&*item, "/docs", "/redoc", "/openapi.json"] {
        let first = send(system.call(Method::GET, path)).await;
        let again = send(system.call(Method::GET, path).header("if-none-match", first.header("etag"))).await;
        assert_eq!(
            [(first.status, caching(&first)), (again.status, caching(&again))],
            [(200, "no-cache"), (304, "no-cache")]
        );
    }

    let look = || send(system.call(Method::GET, "/v1/transactions/t"));
    let processing = look().await;
    assert_eq!((&processing.json()["status"], caching(&processing)), (&json!("PROCESSING"), "private, no-store"));
    let tag = processing.header("etag");
    let unchanged = send(system.call(Method::GET, "/v1/transactions/t").header("if-none-match", tag)).await;
    assert_eq!((unchanged.status, caching(&unchanged)), (304, "private, no-store"));
    sqlx::query("UPDATE apalis.jobs SET run_at = now()").execute(&system.database.pool().await).await.unwrap();
    let _worker = start_worker(&system.database.url, &[]).await;
    let settled = send(system.call(Method::GET, "/v1/transactions/t?wait=30")).await;
    assert_eq!((&settled.json()["status"], caching(&settled)), (&json!("PROCESSED"), "no-cache"), "{settled:?}");
}

#[tokio::test]
async fn every_json_answer_ends_with_one_newline() {
    let system = System::start(&[]).await;
    let (_, item) = item(&system).await;
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
        let answer = send(system.call(Method::GET, path)).await;
        assert!(answer.text.ends_with("}\n") || answer.text.ends_with("]\n"), "{path}: {answer:?}");
        assert_eq!(answer.header("content-length"), answer.text.len().to_string(), "{path}");
    }
}
