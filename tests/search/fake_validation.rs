//! The fake Elasticsearch refuses the invalid requests that a real one refuses.

use serde_json::{Value, json};

use super::fake::FakeElasticsearch;
use crate::harness::process;

#[tokio::test]
async fn fake_elasticsearch_refuses_invalid_requests() {
    let (fake, client) = (FakeElasticsearch::start().await, process::http_client());
    let send = async |method: &str, path: &str, kind: &str, body: &str| {
        let request = client.request(method.parse().unwrap(), format!("{}/{path}", fake.url()));
        let request =
            if body.is_empty() { request } else { request.header("content-type", kind).body(body.to_owned()) };
        request.send().await.unwrap().status().as_u16()
    };
    let (json, lines) = ("application/json", "application/x-ndjson");
    let index = json!({
        "settings": { "index": { "gc_deletes": "1h" } }, "aliases": { "items": {} },
        "mappings": { "dynamic": "strict", "properties": { "id": { "type": "long" }, "title": { "type": "text" } } },
    });
    let with = |from: &Value, path: &str, value: Value| {
        let mut changed = from.clone();
        *changed.pointer_mut(path).unwrap() = value;
        changed.to_string()
    };
    for (changed, expected) in [
        (with(&index, "/mappings/properties/id", json!({ "type": "integral" })), 400),
        (with(&index, "/settings", json!({ "indices": {} })), 400),
        (index.to_string(), 200),
        (index.to_string(), 400),
    ] {
        assert_eq!(send("PUT", "items-1", json, &changed).await, expected, "{changed}");
    }
    let index_1 = r#"{"index":{"_id":"1","version":1,"version_type":"external"}}"#;
    let source = r#"{"id":1,"title":"x"}"#;
    for (kind, body, expected) in [
        (lines, format!("{index_1}\n{source}\n"), 200),
        (lines, format!("{index_1}\n{source}"), 400),
        (lines, format!("{index_1}\n"), 400),
        (lines, format!("{source}\n{index_1}\n"), 400),
        (lines, format!("{}\n{source}\n", index_1.replace("version_type", "versiontype")), 400),
        (lines, format!("{}\n{source}\n", index_1.replace("index", "upsert")), 400),
        ("text/plain", format!("{index_1}\n{source}\n"), 406),
    ] {
        assert_eq!(send("POST", "items/_bulk", kind, &body).await, expected, "{kind} {body}");
    }
    for (path, kind, body, expected) in [
        ("items/_doc/1?version=1&version_type=external", json, source, 409),
        ("items/_doc/1?version=1&version_type=external_gte", json, source, 200),
        ("items/_doc/1?version=2&version_type=external", json, r#"{"id":1,"colour":"red"}"#, 400),
        ("items/_doc/1?version=2&version_type=external", json, r#"{"id":"one"}"#, 400),
        ("items/_doc/1?version=2&version_type=external", lines, source, 406),
        ("items/_doc/1?versions=2", json, source, 400),
        ("others/_doc/1?version=2&version_type=external", json, source, 404),
    ] {
        assert_eq!(send("PUT", path, kind, body).await, expected, "{path} {body}");
    }
    for (body, expected) in [
        (json!({ "query": { "match_all": {} } }), 200),
        (json!({ "query": { "match_all": {} }, "limit": 1 }), 400),
        (json!({ "query": { "match_all": {} }, "size": 10_001 }), 400),
        (json!({ "query": { "match_all": {} }, "search_after": [1] }), 400),
        (json!({ "query": { "multimatch": {} } }), 400),
        (json!({ "query": { "multi_match": { "query": "x", "type": "cross_fields", "fuzziness": "AUTO" } } }), 400),
        (json!({ "query": { "multi_match": { "query": "x", "boots": 2 } } }), 400),
        (json!({ "query": { "match_all": {} }, "highlight": { "encoder": "xml", "fields": {} } }), 400),
    ] {
        assert_eq!(send("POST", "items/_search", json, &body.to_string()).await, expected, "{body}");
    }
}
