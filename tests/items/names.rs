//! Titles need a visible character.

use reqwest::Method;
use serde_json::json;

use super::{ITEMS, create_user, start};
use crate::harness::http::send;

#[tokio::test]
async fn titles_have_a_visible_character() {
    let system = start(&[]).await;
    let (_, token) = create_user(&system.database.pool().await, "ada").await;
    let send = async |method: Method, path: &str, title: &str| {
        send(system.request(method, path).bearer_auth(&token).json(&json!({"title": title}))).await
    };
    let created = send(Method::POST, ITEMS, " Kettle ").await;
    assert_eq!((created.status, created.json()["title"].as_str()), (201, Some(" Kettle ")));
    let path = created.header("location").to_owned();
    for title in [
        "",
        " ",
        "\t\r\n",
        "\u{200b}",
        "\u{a0}\u{3000}",
        "\u{feff}",
        "\u{2060}\u{200d}",
        "\u{3164}",
        "\u{2800}",
        "\u{ad}\u{85}",
    ] {
        for (method, path) in [(Method::POST, ITEMS), (Method::PUT, &*path)] {
            let response = send(method, path, title).await;
            response.assert_problem(422, title);
            let expected = ("string_too_short", "[\"body\",\"title\"]", "String should have at least 1 character");
            let failures = response.validation_errors();
            let found: Vec<_> = failures.iter().map(|(kind, loc, msg)| (&**kind, &**loc, &**msg)).collect();
            assert_eq!(found, [expected], "{title:?}");
        }
    }
    for title in ["!", "👍", "\u{200f}שלום", "0"] {
        assert_eq!(send(Method::PUT, &path, title).await.json()["title"], title);
    }
}
