//! `GET /api/v1/search/items`: hits, highlights, and validation errors.

use jobs::items::search::{Config, Searcher};

use super::document;
use crate::harness::{
    http::{HttpResponse, send, send_raw},
    system::System,
};

async fn get(system: &System, query: &str) -> HttpResponse {
    send(system.get(&format!("/api/v1/search/items{query}"))).await
}

#[tokio::test]
async fn the_search_endpoint_returns_ranked_hits() {
    let system = System::start(&[]).await;
    let searcher = Searcher::start(&system.database.pool().await.into(), &Config::default()).unwrap();
    searcher.index(document(1, 1, "Red <b>Kettle</b>", None)).await.unwrap();
    searcher.index(document(2, 1, "Blue Kettle", Some("It whistles like a red one"))).await.unwrap();
    let response = get(&system, "?q=+red+kett&limit=5").await;
    assert_eq!(response.status, 200, "{response:?}");
    let expected = serde_json::json!({ "query": "red kett", "total": 2, "items": [
        {
            "id": 1, "title": "Red <b>Kettle</b>", "description": null, "price_cents": null, "owner_id": 7,
            "created_at": "2026-11-21T10:00:00.123456Z", "updated_at": "2026-11-21T11:00:00.000000Z",
            "highlight": "<em>Red</em> &lt;b&gt;<em>Kettle</em>&lt;/b&gt;",
        },
        {
            "id": 2, "title": "Blue Kettle", "description": "It whistles like a red one", "price_cents": 200,
            "owner_id": 7, "created_at": "2026-11-21T10:00:00.123456Z", "updated_at": "2026-11-21T11:00:00.000000Z",
            "highlight": "Blue <em>Kettle</em> … It whistles like a <em>red</em> one",
        },
    ] });
    assert_eq!(response.json(), expected);
    assert_eq!(get(&system, "?q=kettle&limit=1").await.json()["total"], 2);
    assert_eq!(get(&system, "?q=%21").await.json()["items"], serde_json::json!([]));
    assert_eq!(get(&system, &format!("?q={}", "%C3%BC".repeat(200))).await.status, 200);
}

#[tokio::test]
async fn the_search_endpoint_names_invalid_parameters() {
    let system = System::start(&[]).await;
    let long = format!("?q={}&limit=0", "x".repeat(201));
    for (query, failures) in [
        ("", vec![("missing", r#"["query","q"]"#, "Field required")]),
        ("?q=", vec![("string_too_short", r#"["query","q"]"#, "String should have at least 1 character")]),
        ("?q=%20%20", vec![("string_too_short", r#"["query","q"]"#, "String should have at least 1 character")]),
        ("?q=%E2%80%8B", vec![("string_too_short", r#"["query","q"]"#, "String should have at least 1 character")]),
        (
            "?q=%FF",
            vec![(
                "string_unicode",
                r#"["query","q"]"#,
                "Input should be a valid string, unable to parse raw data as a unicode string",
            )],
        ),
        ("?q=%00", vec![("value_error", r#"["query","q"]"#, "Value error, text must not contain NUL")]),
        (
            &*long,
            vec![
                ("string_too_long", r#"["query","q"]"#, "String should have at most 200 characters"),
                ("greater_than_equal", r#"["query","limit"]"#, "Input should be greater than or equal to 1"),
            ],
        ),
        (
            "?q=x&limit=101",
            vec![("less_than_equal", r#"["query","limit"]"#, "Input should be less than or equal to 100")],
        ),
        (
            "?limit=ten",
            vec![
                ("missing", r#"["query","q"]"#, "Field required"),
                (
                    "int_parsing",
                    r#"["query","limit"]"#,
                    "Input should be a valid integer, unable to parse string as an integer",
                ),
            ],
        ),
    ] {
        let response = get(&system, query).await;
        response.assert_problem(422, query);
        let mut expected: Vec<_> = failures
            .iter()
            .map(|(kind, loc, msg)| ((*kind).to_owned(), (*loc).to_owned(), (*msg).to_owned()))
            .collect();
        let mut actual = response.validation_errors();
        expected.sort();
        actual.sort();
        assert_eq!(actual, expected, "{query}");
    }
    // Bytes that are not UTF-8, which no client library would send.
    let response = send_raw(
        &system.api.url,
        b"GET /api/v1/search/items?q=%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    response.assert_problem(422, "bytes that are not UTF-8");
}
