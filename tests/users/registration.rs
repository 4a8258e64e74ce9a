//! Registration: accepted users, duplicates, and the validation errors of every field.

use serde_json::{Value, json};
use sqlx::Row;

use super::{LOGIN, PASSWORD, REGISTER, System, registration};

#[tokio::test]
async fn an_email_registers_once() {
    let system = System::start(&[]).await;
    let user = system.register("Ada@Example.COM").await;
    let id = user["id"].as_i64().expect("an id");
    assert_eq!(user, json!({"id": id, "email": "Ada@example.com", "full_name": "Ada Lovelace"}));
    for again in ["Ada@Example.COM", "ada@example.com", " ADA@EXAMPLE.COM "] {
        let problem = system.post_json(REGISTER, &registration(again)).await.assert_problem(409, again);
        assert_eq!(problem["detail"], "Email already registered");
    }
    let row =
        sqlx::query("SELECT email, role, password_hash FROM users").fetch_one(&system.database.pool().await).await;
    let row = row.expect("one user");
    assert_eq!((row.get("email"), row.get("role")), ("Ada@example.com", "user"));
    let hash: &str = row.get("password_hash");
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    let log = system.api.process.log();
    assert!(!log.contains(PASSWORD) && !log.contains("argon2id"), "{log}");
}

#[tokio::test]
async fn one_of_many_concurrent_registrations_succeeds() {
    let system = System::start(&[]).await;
    let address = |number: usize| if number.is_multiple_of(2) { "ada@example.com" } else { "ADA@example.com" };
    let bodies: Vec<Value> = (0..16).map(|number| registration(address(number))).collect();
    let responses = futures_util::future::join_all(bodies.iter().map(|body| system.post_json(REGISTER, body))).await;
    let with = |status: u16| responses.iter().filter(|response| response.status == status).count();
    assert_eq!((with(201), with(409)), (1, 15), "{responses:?}");
    assert_eq!(system.count("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn invalid_registrations_get_pydantic_messages() {
    let system = System::start(&[]).await;
    let with = |name: &str, value: Value| {
        let mut body = registration("ada@example.com");
        body[name] = value;
        body
    };
    let email = |reason: &str| format!("value is not a valid email address: {reason}");
    for (name, value, kind, message) in [
        ("email", json!("ada"), "value_error", email("An email address must have an @-sign.")),
        (
            "email",
            json!("ada@example"),
            "value_error",
            email("The part after the @-sign is not valid. It should have a period."),
        ),
        ("email", json!(""), "value_error", email("An email address must have an @-sign.")),
        ("email", json!(7), "string_type", "Input should be a valid string".into()),
        ("email", json!("x".repeat(2000)), "string_too_long", "String should have at most 1024 characters".into()),
        (
            "email",
            json!(format!("{}@example.com", "x".repeat(243))),
            "value_error",
            email("The email address is too long (1 character too many)."),
        ),
        ("password", json!("7 chars"), "string_too_short", "String should have at least 8 characters".into()),
        ("password", json!("üüüüüüü"), "string_too_short", "String should have at least 8 characters".into()),
        ("password", json!("x".repeat(1025)), "string_too_long", "String should have at most 1024 characters".into()),
        ("password", json!(null), "string_type", "Input should be a valid string".into()),
        ("password", json!("12345678\0"), "value_error", "Value error, text must not contain NUL".into()),
        ("full_name", json!(""), "string_too_short", "String should have at least 1 character".into()),
        ("full_name", json!("x".repeat(256)), "string_too_long", "String should have at most 255 characters".into()),
    ] {
        let response = system.post_json(REGISTER, &with(name, value.clone())).await;
        response.assert_problem(422, name);
        let expected = (kind.to_owned(), format!("[\"body\",\"{name}\"]"), message);
        assert_eq!(response.validation_errors(), [expected], "{name}: {value}");
        assert!(name != "password" || response.json()["detail"][0]["input"].is_null(), "{response:?}");
    }
    let response = system.post_json(REGISTER, &json!({"email": "x", "password": "hunter2"})).await;
    let kinds: Vec<String> = response.validation_errors().into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["value_error", "string_too_short", "missing"]);
    assert!(!response.text.contains("hunter2"), "{response:?}");
    for path in [REGISTER, LOGIN] {
        system.post_text(path, "{".into()).await.assert_problem(400, path);
        system.post_text(path, String::new()).await.assert_problem(422, path);
    }
    assert_eq!(system.count_hashes().await, 0, "an invalid registration costs no hash");
    assert_eq!(system.count("SELECT count(*) FROM users").await, 0);
    for (name, value) in [("password", "x".repeat(1024)), ("password", "ü".repeat(8)), ("full_name", "é".repeat(255))]
    {
        let mut body = registration(&format!("{}-{name}@example.com", value.len()));
        body[name] = json!(value);
        assert_eq!(system.post_json(REGISTER, &body).await.status, 201, "{name}: {value}");
    }
}
