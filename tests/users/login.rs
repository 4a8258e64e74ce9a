//! Login: tokens, failures, and that a failure does not reveal which e-mail addresses are registered.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jobs::users::{Role, token::Tokens};
use serde_json::{Value, json};

use super::{LOGIN, PASSWORD, System};
use crate::harness::process::Api;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn a_login_returns_a_token_of_its_user() {
    let system = System::start(&[("JWT_SECRET", SECRET)]).await;
    let id = system.register("ada@example.com").await["id"].as_i64().expect("an id");
    let response = system.login("ADA@example.com", PASSWORD).await;
    assert_eq!((response.status, response.header("cache-control")), (200, "no-store"), "{response:?}");
    let token = response.json();
    assert_eq!((&token["token_type"], &token["expires_in"]), (&json!("bearer"), &json!(3600)));
    assert_eq!(token.as_object().map(serde_json::Map::len), Some(3), "{token}");
    let token = token["access_token"].as_str().expect("a token");
    let claims = Tokens::new(SECRET.as_bytes()).check(token).expect("a valid token");
    assert_eq!((claims.user().map(|user| user.0), claims.role), (Some(id), Role::User));
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).expect("claims");
    let payload: Value = serde_json::from_slice(&payload).expect("JSON");
    assert_eq!(payload["sub"], id.to_string());
    assert!(!system.api.process.log().contains(token), "tokens stay out of the log");

    // A role that an operator sets is in the next token.
    let promoted = sqlx::query("UPDATE users SET role = 'admin'").execute(&system.database.pool().await).await;
    assert_eq!(promoted.expect("an update").rows_affected(), 1);
    let token = system.login("ada@example.com", PASSWORD).await.json();
    let claims = Tokens::new(SECRET.as_bytes()).check(token["access_token"].as_str().expect("a token"));
    assert_eq!(claims.map(|claims| claims.role), Ok(Role::Admin));
}

#[tokio::test]
async fn unknown_emails_and_wrong_passwords_look_and_cost_the_same() {
    let system = System::start(&[]).await;
    system.register("ada@example.com").await;
    let mut failures = Vec::new();
    for (email, password) in [
        ("ada@example.com", "wrong horse battery"),
        ("unknown@example.com", PASSWORD),
        ("ada@example.com", ""),
        ("unknown@example.com", ""),
    ] {
        let before = system.count_hashes().await;
        let response = system.login(email, password).await;
        let mut problem = response.assert_problem(401, email);
        assert_eq!(system.count_hashes().await, before + 1, "{email}: one hash");
        assert_eq!(response.header("www-authenticate"), "Bearer");
        problem["correlation_id"] = Value::Null;
        let mut headers: Vec<_> = response.headers.keys().map(ToString::to_string).collect();
        headers.sort_unstable();
        failures.push((problem, headers));
    }
    assert!(failures.iter().all(|other| *other == failures[0]), "{failures:?}");
}

#[tokio::test]
async fn invalid_logins_name_the_failing_fields() {
    let system = System::start(&[]).await;
    for (body, failures) in [
        (json!({}), vec![("missing", "email"), ("missing", "password")]),
        (json!({"email": "ada", "password": PASSWORD}), vec![("value_error", "email")]),
        (json!({"email": "ada@example.com", "password": 1}), vec![("string_type", "password")]),
        (json!({"email": "ada@example.com", "password": "x".repeat(1025)}), vec![("string_too_long", "password")]),
    ] {
        let response = system.post_json(LOGIN, &body).await;
        response.assert_problem(422, &body.to_string());
        let found: Vec<_> = response.validation_errors().into_iter().map(|(kind, loc, _)| (kind, loc)).collect();
        let expected: Vec<_> =
            failures.iter().map(|(kind, name)| ((*kind).to_owned(), format!("[\"body\",\"{name}\"]"))).collect();
        assert_eq!(found, expected, "{body}");
    }
}

#[tokio::test]
async fn no_response_repeats_a_password() {
    let system = System::start(&[]).await;
    for path in [LOGIN, super::REGISTER] {
        for body in [
            format!("[{{\"email\": \"ada@example.com\", \"password\": \"{PASSWORD}\"}}]"),
            format!("\"{PASSWORD}\""),
            format!("[[\"{PASSWORD}\"]]"),
            format!("{{\"password\": \"{PASSWORD}\"}}"),
            format!("{{\"passwort\": \"{PASSWORD}\", \"passwort\": \"{PASSWORD}\"}}"),
            format!("{{\"password\": [\"{PASSWORD}\"]}}"),
            format!("{{\"email\": {{\"password\": \"{PASSWORD}\"}}, \"password\": 1}}"),
            format!("{{\"full_name\": [\"{PASSWORD}\"], \"email\": [\"{PASSWORD}\"], \"password\": 1}}"),
            format!("{{\"password\": \"{PASSWORD}\""),
            PASSWORD.to_owned(),
        ] {
            let response = system.post_text(path, body.clone()).await;
            assert!(matches!(response.status, 400 | 422), "{path} {body}: {response:?}");
            assert!(!response.text.contains(PASSWORD), "{path} {body}: {response:?}");
        }
    }
    let log = system.api.process.log();
    assert!(!log.contains(PASSWORD), "{log}");
}

#[tokio::test]
async fn without_a_secret_each_process_generates_its_own_key() {
    let system = System::start(&[]).await;
    system.register("ada@example.com").await;
    let other = System { api: Api::start(&system.database.url, &[]).await, ..system };
    let token = other.login("ada@example.com", PASSWORD).await.json();
    let token = token["access_token"].as_str().expect("a token").to_owned();
    for guess in [&b""[..], b"secret", SECRET.as_bytes(), &[0; 32]] {
        assert!(Tokens::new(guess).check(&token).is_err());
    }
}
