//! Created, read, replaced and deleted over HTTP: every status, and who may do what.

use reqwest::Method;
use serde_json::{Value, json};

use super::{ITEMS, System, count, user};
use crate::harness::http::{HttpResponse, send};

async fn post(system: &System, token: &str, body: Value) -> HttpResponse {
    send(system.call(Method::POST, ITEMS).bearer_auth(token).json(&body)).await
}

#[tokio::test]
async fn an_item_lives() {
    let system = System::start(&[]).await;
    let pool = system.database.pool().await;
    let (ada, token) = user(&pool, "Ada").await;
    let body = json!({"title": "Bicycle", "description": "Blue", "price_cents": " 500 ", "owner_id": ada.0, "x": 1});
    let created = post(&system, &token, body).await;
    assert_eq!(created.status, 201, "{created:?}");
    let item = created.json();
    let id = item["id"].as_i64().expect("an id");
    let path = format!("{ITEMS}/{id}");
    assert_eq!((created.header("location"), created.header("etag")), (&*path, "\"1\""));
    let shown = json!({
        "id": id, "title": "Bicycle", "description": "Blue", "price_cents": 500, "owner_id": ada.0,
        "owner": {"id": ada.0, "full_name": "Ada"}, "created_at": item["created_at"], "updated_at": item["updated_at"],
    });
    assert_eq!(item, shown);
    assert!(!created.text.contains("example.com"), "no address of anybody");

    let found = send(system.call(Method::GET, &path)).await;
    assert_eq!((found.status, found.header("etag"), found.json()), (200, "\"1\"", item.clone()));
    let unchanged = send(system.call(Method::GET, &path).header("if-none-match", "W/\"1\"")).await;
    assert_eq!((unchanged.status, &*unchanged.text, unchanged.header("etag")), (304, "", "\"1\""));

    let put = async |tag: Option<&str>, body: Value| {
        let request = system.call(Method::PUT, &path).bearer_auth(&token).json(&body);
        send(tag.into_iter().fold(request, |request, tag| request.header("if-match", tag))).await
    };
    let updated = put(Some("\"1\""), json!({"title": "Tricycle"})).await;
    assert_eq!((updated.status, updated.header("etag")), (200, "\"2\""), "{updated:?}");
    assert_eq!(updated.json()["description"], Value::Null, "replaced as a whole");
    assert_eq!(updated.json()["created_at"], item["created_at"]);
    assert_ne!(updated.json()["updated_at"], item["updated_at"]);
    assert_eq!(send(system.call(Method::GET, &path)).await.json(), updated.json());
    let stale = put(Some("\"1\", W/\"2\""), json!({"title": "Unicycle"})).await;
    assert!(stale.assert_problem(412, "stale")["detail"].as_str().unwrap().contains("\"2\""));
    assert_eq!(put(Some("*"), json!({"title": "Unicycle"})).await.status, 200);
    assert_eq!(put(None, json!({"title": "Car", "price_cents": 5.0})).await.header("etag"), "\"4\"");

    let delete =
        async |tag: &str| send(system.call(Method::DELETE, &path).bearer_auth(&token).header("if-match", tag)).await;
    delete("\"3\"").await.assert_problem(412, "stale");
    let deleted = delete("\"4\"").await;
    assert_eq!((deleted.status, &*deleted.text), (204, ""));
    send(system.call(Method::GET, &path)).await.assert_problem(404, "gone");
    delete("\"4\"").await.assert_problem(404, "gone");
    put(None, json!({"title": "Car"})).await.assert_problem(404, "gone");
    // No worker took the job of the first write, so the three that follow share it; the deletion has its own.
    let jobs = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'index_item'";
    assert_eq!(count(&pool, jobs).await, 2);
}

#[tokio::test]
async fn only_owners_write() {
    let system = System::start(&[]).await;
    let pool = system.database.pool().await;
    let ((ada, token), (_, other)) = (user(&pool, "Ada").await, user(&pool, "Eve").await);
    let path = post(&system, &token, json!({"title": "mine"})).await.header("location").to_owned();
    post(&system, &other, json!({"title": "x", "owner_id": ada.0})).await.assert_problem(403, "in another's name");
    for (method, body) in [(Method::PUT, json!({"title": "x"})), (Method::DELETE, json!(null))] {
        send(system.call(method.clone(), &path).bearer_auth(&other).json(&body)).await.assert_problem(403, "another's");
        send(system.call(method.clone(), &path).json(&body)).await.assert_problem(401, "nobody");
        send(system.call(method.clone(), &path).bearer_auth("x.y.z").json(&body)).await.assert_problem(401, "no token");
        let unknown = format!("{ITEMS}/9223372036854775807");
        send(system.call(method, &unknown).bearer_auth(&other).json(&body)).await.assert_problem(404, "unknown");
    }
    send(system.call(Method::POST, ITEMS).body("{}")).await.assert_problem(401, "nobody");
    let body = json!({"title": "x", "owner_id": 999_999});
    send(system.call(Method::PUT, &path).bearer_auth(&token).json(&body)).await.assert_problem(403, "given away");
    assert_eq!(send(system.call(Method::GET, &path)).await.json()["title"], "mine");
    // A user who is gone: the token says who it was.
    sqlx::query("DELETE FROM users WHERE full_name = 'Eve'").execute(&pool).await.unwrap();
    post(&system, &other, json!({"title": "x"})).await.assert_problem(401, "gone");
}

#[tokio::test]
async fn bad_input_is_named_in_pydantics_words() {
    let system = System::start(&[]).await;
    let (_, token) = user(&system.database.pool().await, "Ada").await;
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
        let answer = send(system.call(Method::POST, ITEMS).bearer_auth(&token).body(body)).await;
        answer.assert_problem(422, body);
        assert_eq!(answer.validation_errors(), [(kind.into(), format!(r#"["body","{loc}"]"#), msg.into())], "{body}");
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
        let answer = send(system.call(Method::POST, ITEMS).bearer_auth(&token).body(body)).await;
        assert_eq!(answer.json()["price_cents"], shown, "{price}");
    }
    for path in ["x", "1.5", "%00"] {
        let answer = send(system.call(Method::GET, &format!("{ITEMS}/{path}"))).await;
        answer.assert_problem(422, path);
        assert_eq!(answer.validation_errors()[0].1, r#"["path","item_id"]"#);
    }
    for path in ["0", "-1", "99999999999999999999"] {
        send(system.call(Method::GET, &format!("{ITEMS}/{path}"))).await.assert_problem(404, path);
    }
}

#[tokio::test]
async fn pages_are_newest_first_and_counted() {
    let system = System::start(&[]).await;
    let (_, token) = user(&system.database.pool().await, "Ada").await;
    let page = async |query: &str| {
        let answer = send(system.call(Method::GET, &format!("{ITEMS}{query}"))).await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        let titles: Vec<_> =
            answer.json().as_array().expect("an array").iter().map(|item| item["title"].clone()).collect();
        (titles, answer.header("x-total-count").to_owned())
    };
    assert_eq!(page("").await, (vec![], "0".into()));
    for title in 0..25 {
        post(&system, &token, json!({"title": title.to_string()})).await;
    }
    let titles = |range: std::ops::Range<u32>| range.rev().map(|title| json!(title.to_string())).collect::<Vec<_>>();
    assert_eq!(page("").await, (titles(5..25), "25".into()));
    assert_eq!(page("?skip=20").await, (titles(0..5), "25".into()));
    assert_eq!(page("?skip=3&limit=2").await, (titles(20..22), "25".into()));
    assert_eq!(page("?limit=100").await, (titles(0..25), "25".into()));
    for beyond in ["25", "9223372036854775807"] {
        assert_eq!(page(&format!("?skip={beyond}")).await, (vec![], "25".into()), "{beyond}");
    }
    let answer = send(system.call(Method::GET, &format!("{ITEMS}?skip=-1&limit=101"))).await;
    answer.assert_problem(422, "both");
    let failure = |kind: &str, name: &str, msg: &str| (kind.into(), format!(r#"["query","{name}"]"#), msg.into());
    let expected = [
        failure("greater_than_equal", "skip", "Input should be greater than or equal to 0"),
        failure("less_than_equal", "limit", "Input should be less than or equal to 100"),
    ];
    assert_eq!(answer.validation_errors(), expected);
    for beyond in ["9223372036854775808", "99999999999999999999"] {
        let answer = send(system.call(Method::GET, &format!("{ITEMS}?skip={beyond}"))).await;
        let most = "Input should be less than or equal to 9223372036854775807";
        assert_eq!(answer.validation_errors(), [failure("less_than_equal", "skip", most)], "{beyond}");
    }
}
