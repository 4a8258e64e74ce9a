//! Create, read, replace, delete and list over HTTP: every status, ownership, and validation.

use reqwest::Method;
use serde_json::{Value, json};

use super::{ITEMS, create_user, start};
use crate::harness::{
    http::{HttpResponse, send},
    system::System,
};

async fn post(system: &System, token: &str, body: Value) -> HttpResponse {
    send(system.request(Method::POST, ITEMS).bearer_auth(token).json(&body)).await
}

#[tokio::test]
async fn items_are_created_read_replaced_and_deleted() {
    let system = start(&[]).await;
    let pool = system.database.pool().await;
    let (ada, token) = create_user(&pool, "Ada").await;
    let body = json!({"title": "Bicycle", "description": "Blue", "price_cents": " 500 ", "owner_id": ada.0, "x": 1});
    let created = post(&system, &token, body).await;
    assert_eq!(created.status, 201, "{created:?}");
    let item = created.json();
    let id = item["id"].as_i64().expect("an id");
    let path = format!("{ITEMS}/{id}");
    assert_eq!((created.header("location"), created.header("etag")), (&*path, "\"1\""));
    let expected = json!({
        "id": id, "title": "Bicycle", "description": "Blue", "price_cents": 500, "owner_id": ada.0,
        "owner": {"id": ada.0, "full_name": "Ada"}, "created_at": item["created_at"], "updated_at": item["updated_at"],
    });
    assert_eq!(item, expected);
    assert!(!created.text.contains("example.com"), "e-mail addresses stay private");

    let found = send(system.get(&path)).await;
    assert_eq!((found.status, found.header("etag"), found.json()), (200, "\"1\"", item.clone()));
    let unchanged = send(system.get(&path).header("if-none-match", "W/\"1\"")).await;
    assert_eq!((unchanged.status, &*unchanged.text, unchanged.header("etag")), (304, "", "\"1\""));

    let put = async |tag: Option<&str>, body: Value| {
        let request = system.request(Method::PUT, &path).bearer_auth(&token).json(&body);
        send(tag.into_iter().fold(request, |request, tag| request.header("if-match", tag))).await
    };
    let updated = put(Some("\"1\""), json!({"title": "Tricycle"})).await;
    assert_eq!((updated.status, updated.header("etag")), (200, "\"2\""), "{updated:?}");
    assert_eq!(updated.json()["description"], Value::Null, "PUT replaces the whole item");
    assert_eq!(updated.json()["created_at"], item["created_at"]);
    assert_ne!(updated.json()["updated_at"], item["updated_at"]);
    assert_eq!(send(system.get(&path)).await.json(), updated.json());
    let stale = put(Some("\"1\", W/\"2\""), json!({"title": "Unicycle"})).await;
    assert!(stale.assert_problem(412, "stale")["detail"].as_str().unwrap().contains("\"2\""));
    assert_eq!(put(Some("*"), json!({"title": "Unicycle"})).await.status, 200);
    assert_eq!(put(None, json!({"title": "Car", "price_cents": 5.0})).await.header("etag"), "\"4\"");

    let delete =
        async |tag: &str| send(system.request(Method::DELETE, &path).bearer_auth(&token).header("if-match", tag)).await;
    delete("\"3\"").await.assert_problem(412, "stale");
    let deleted = delete("\"4\"").await;
    assert_eq!((deleted.status, &*deleted.text), (204, ""));
    send(system.get(&path)).await.assert_problem(404, "gone");
    delete("\"4\"").await.assert_problem(404, "gone");
    put(None, json!({"title": "Car"})).await.assert_problem(404, "gone");
    // No worker has claimed the job of the first write, so the next three share it. The deletion has its own.
    let jobs = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'index_item'";
    assert_eq!(system.count(jobs).await, 2);
}

#[tokio::test]
async fn only_the_owner_changes_an_item() {
    let system = start(&[]).await;
    let pool = system.database.pool().await;
    let ((ada, token), (_, other)) = (create_user(&pool, "Ada").await, create_user(&pool, "Eve").await);
    let path = post(&system, &token, json!({"title": "mine"})).await.header("location").to_owned();
    post(&system, &other, json!({"title": "x", "owner_id": ada.0}))
        .await
        .assert_problem(403, "an owner that is not the caller");
    for (method, body) in [(Method::PUT, json!({"title": "x"})), (Method::DELETE, json!(null))] {
        send(system.request(method.clone(), &path).bearer_auth(&other).json(&body))
            .await
            .assert_problem(403, "the item of another user");
        send(system.request(method.clone(), &path).json(&body)).await.assert_problem(401, "no credentials");
        send(system.request(method.clone(), &path).bearer_auth("x.y.z").json(&body))
            .await
            .assert_problem(401, "an invalid token");
        let unknown = format!("{ITEMS}/9223372036854775807");
        send(system.request(method, &unknown).bearer_auth(&other).json(&body)).await.assert_problem(404, "unknown");
    }
    send(system.request(Method::POST, ITEMS).body("{}")).await.assert_problem(401, "no credentials");
    let body = json!({"title": "x", "owner_id": 999_999});
    send(system.request(Method::PUT, &path).bearer_auth(&token).json(&body)).await.assert_problem(403, "a new owner");
    assert_eq!(send(system.get(&path)).await.json()["title"], "mine");
    // The token of a deleted user.
    sqlx::query("DELETE FROM users WHERE full_name = 'Eve'").execute(&pool).await.unwrap();
    post(&system, &other, json!({"title": "x"})).await.assert_problem(401, "a deleted user");
}

#[tokio::test]
async fn invalid_items_get_pydantic_messages() {
    let system = start(&[]).await;
    let (_, token) = create_user(&system.database.pool().await, "Ada").await;
    for (body, kind, loc, msg) in [
        ("{}", "missing", "title", "Field required"),
        (r#"{"title":""}"#, "string_too_short", "title", "String should have at least 1 character"),
        (r#"{"title":null}"#, "string_type", "title", "Input should be a valid string"),
        (r#"{"title":"a","description":5}"#, "string_type", "description", "Input should be a valid string"),
        (
            r#"{"title":"a","price_cents":-1}"#,
            "greater_than_equal",
            "price_cents",
            "Input should be greater than or equal to 0",
        ),
        (
            r#"{"title":"a","price_cents":1.5}"#,
            "int_from_float",
            "price_cents",
            "Input should be a valid integer, got a number with a fractional part",
        ),
        (
            r#"{"title":"a","price_cents":"x"}"#,
            "int_parsing",
            "price_cents",
            "Input should be a valid integer, unable to parse string as an integer",
        ),
        (r#"{"title":"a","price_cents":[]}"#, "int_type", "price_cents", "Input should be a valid integer"),
        (r#"{"title":"a\u0000"}"#, "value_error", "title", "Value error, text must not contain NUL"),
    ] {
        let response = send(system.request(Method::POST, ITEMS).bearer_auth(&token).body(body)).await;
        response.assert_problem(422, body);
        assert_eq!(response.validation_errors(), [(kind.into(), format!(r#"["body","{loc}"]"#), msg.into())], "{body}");
    }
    let long = json!({"title": "é".repeat(256), "description": "é".repeat(10_001), "price_cents": "x"});
    let kinds: Vec<_> =
        post(&system, &token, long).await.validation_errors().into_iter().map(|failure| failure.0).collect();
    assert_eq!(kinds, ["string_too_long", "string_too_long", "int_parsing"]);
    let most = json!({"title": "é".repeat(255), "description": "é".repeat(10_000), "price_cents": i64::MAX});
    let created = post(&system, &token, most).await;
    assert_eq!((created.status, created.json()["price_cents"].as_i64()), (201, Some(i64::MAX)));
    for (price, shown) in [("5.0", 5), ("\"5\"", 5), ("true", 1), ("1e2", 100)] {
        let body = format!(r#"{{"title":"a","price_cents":{price}}}"#);
        let response = send(system.request(Method::POST, ITEMS).bearer_auth(&token).body(body)).await;
        assert_eq!(response.json()["price_cents"], shown, "{price}");
    }
    let both = system.request(Method::PUT, &format!("{ITEMS}/abc")).bearer_auth(&token).body(r#"{"title":""}"#);
    let fields: Vec<_> = send(both).await.validation_errors().into_iter().map(|failure| failure.1).collect();
    assert_eq!(fields, [r#"["path","item_id"]"#, r#"["body","title"]"#]);
    for path in ["x", "1.5", "%00"] {
        let response = send(system.get(&format!("{ITEMS}/{path}"))).await;
        response.assert_problem(422, path);
        assert_eq!(response.validation_errors()[0].1, r#"["path","item_id"]"#);
    }
    for path in ["0", "-1", "99999999999999999999"] {
        send(system.get(&format!("{ITEMS}/{path}"))).await.assert_problem(404, path);
    }
}

#[tokio::test]
async fn item_pages_are_newest_first_with_a_total() {
    let system = start(&[]).await;
    let (_, token) = create_user(&system.database.pool().await, "Ada").await;
    let page = async |query: &str| {
        let response = send(system.get(&format!("{ITEMS}{query}"))).await;
        assert_eq!(response.status, 200, "{query}: {response:?}");
        let titles: Vec<_> =
            response.json().as_array().expect("an array").iter().map(|item| item["title"].clone()).collect();
        let next = response.header("link").trim_end_matches(">; rel=\"next\"").trim_start_matches("</api/v1/items");
        (titles, response.header("x-total-count").to_owned(), next.to_owned())
    };
    assert_eq!(page("").await, (vec![], "0".into(), String::new()));
    for title in 0..25 {
        post(&system, &token, json!({"title": title.to_string()})).await;
    }
    let titles = |range: std::ops::Range<u32>| range.rev().map(|title| json!(title.to_string())).collect::<Vec<_>>();
    assert_eq!(page("").await, (titles(5..25), "25".into(), "?skip=20&limit=20".into()));
    assert_eq!(page("?skip=20&limit=20").await, (titles(0..5), "25".into(), String::new()));
    assert_eq!(page("?skip=3&limit=2").await, (titles(20..22), "25".into(), "?skip=5&limit=2".into()));
    assert_eq!(page("?limit=100").await, (titles(0..25), "25".into(), String::new()));
    for beyond in ["25", "9223372036854775807"] {
        assert_eq!(page(&format!("?skip={beyond}")).await, (vec![], "25".into(), String::new()), "{beyond}");
    }
    let response = send(system.get(&format!("{ITEMS}?skip=-1&limit=101"))).await;
    response.assert_problem(422, "both");
    let failure = |kind: &str, name: &str, msg: &str| (kind.into(), format!(r#"["query","{name}"]"#), msg.into());
    let expected = [
        failure("greater_than_equal", "skip", "Input should be greater than or equal to 0"),
        failure("less_than_equal", "limit", "Input should be less than or equal to 100"),
    ];
    assert_eq!(response.validation_errors(), expected);
    for beyond in ["9223372036854775808", "99999999999999999999"] {
        let response = send(system.get(&format!("{ITEMS}?skip={beyond}"))).await;
        let most = "Input should be less than or equal to 9223372036854775807";
        assert_eq!(response.validation_errors(), [failure("less_than_equal", "skip", most)], "{beyond}");
    }
}
