//! Read access to transactions: everyone, or with `TRANSACTIONS_READ=key` only callers with a key or a token.

use jobs::users::{Role, UserId, token::Tokens};

use super::System;
use crate::harness::http::{HttpResponse, send};

const SECRET: &str = "a-secret-of-these-tests-32-bytes-long";
const KEY: &str = "the-key-of-private-routes";
const ADMIN_KEY: &str = "the-key-of-admin-routes-of-these-tests";
const PATHS: [&str; 4] =
    ["/v1/transactions", "/v1/transactions/t", "/v1/transactions/t?wait=0.1", "/v1/transactions/unknown"];

async fn get(system: &System, path: &str, headers: &[(&'static str, &str)]) -> HttpResponse {
    send(headers.iter().fold(system.get(path), |request, (name, value)| request.header(*name, *value))).await
}

#[tokio::test]
async fn a_required_key_protects_every_transaction_route() {
    let variables =
        [("TRANSACTIONS_READ", "key"), ("API_KEY", KEY), ("ADMIN_API_KEY", ADMIN_KEY), ("JWT_SECRET", SECRET)];
    let system = System::start(&variables).await;
    system.send_webhook("t").await;
    let token = |secret: &str| {
        let token = Tokens::new(secret.as_bytes()).issue(UserId(7), Role::User).expect("a token");
        format!("Bearer {token}")
    };
    let (good, foreign) = (token(SECRET), token("another-secret-of-at-least-32-bytes"));
    for path in PATHS {
        for (headers, status) in [
            (&[][..], 403),
            (&[("x-api-key", "")], 403),
            (&[("x-api-key", "wrong")], 403),
            (&[("api_key", KEY)], 403),
            (&[("authorization", &*foreign)], 401),
            (&[("authorization", &foreign), ("x-api-key", KEY)], 401),
        ] {
            let response = get(&system, path, headers).await;
            response.assert_problem(status, &format!("{path} {headers:?}"));
            assert!(!response.text.contains("acc_user_1"), "{response:?}");
        }
        let status = if path.ends_with("unknown") { 404 } else { 200 };
        for credential in [("x-api-key", KEY), ("x-api-key", ADMIN_KEY), ("authorization", &*good)] {
            assert_eq!(get(&system, path, &[credential]).await.status, status, "{path} {credential:?}");
        }
    }
}

#[tokio::test]
async fn without_a_required_key_everyone_reads_transactions() {
    let system = System::start(&[]).await;
    system.send_webhook("t").await;
    assert_eq!(get(&system, "/v1/transactions", &[]).await.json().as_array().map(Vec::len), Some(1));
    assert_eq!(get(&system, "/v1/transactions/t", &[]).await.status, 200);
    for (key, status) in [("", 200), ("  ", 200), ("wrong", 403)] {
        assert_eq!(get(&system, "/v1/transactions/t", &[("x-api-key", key)]).await.status, status, "{key:?}");
    }
    get(&system, "/v1/transactions", &[("authorization", "Bearer x.y.z")]).await.assert_problem(401, "a bad token");
}
