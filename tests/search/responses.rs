//! The fake Elasticsearch and a real engine respond alike, to valid and to invalid requests.

use serde_json::{Value, json};

use super::fake::FakeElasticsearch;
use crate::harness::{process, search_engine};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const INDEX: &str = "millrace-test-1";

/// A request and its response: the status, with the type of the error or the results of a bulk request.
struct Row {
    method: &'static str,
    path: String,
    content_type: &'static str,
    body: String,
    expected: &'static str,
}

fn row(method: &'static str, path: &str, body: impl ToString, expected: &'static str) -> Row {
    let content_type = if path.contains("_bulk") { LINES } else { JSON };
    Row { method, path: path.to_owned(), content_type, body: body.to_string(), expected }
}

/// Creates an index with the alias `millrace-test`. Each change replaces the value at a path.
fn create_index(changes: &[(&str, Value)], expected: &'static str) -> Row {
    let mut body = json!({
        "settings": { "index": { "gc_deletes": "1h" } }, "aliases": { "millrace-test": {} },
        "mappings": { "dynamic": "strict", "properties": {
            "id": { "type": "long" }, "title": { "type": "text", "analyzer": "whitespace" },
            "key": { "type": "keyword" }, "date": { "type": "date" },
        } },
    });
    for (path, value) in changes {
        *body.pointer_mut(path).expect("a path in the body") = value.clone();
    }
    row("PUT", INDEX, body, expected)
}

fn indexes() -> Vec<Row> {
    let field = |field: Value, expected| create_index(&[("/mappings/properties/title", field)], expected);
    vec![
        row("HEAD", "_alias/millrace-test", "", "404"),
        row("PUT", INDEX, "{", "400 parse_exception"),
        row("PUT", INDEX, json!({ "mapping": {} }), "400 parse_exception"),
        field(json!({ "type": "integral" }), "400 mapper_parsing_exception"),
        field(json!({ "type": "text", "analyser": "whitespace" }), "400 mapper_parsing_exception"),
        create_index(&[("/mappings", json!({ "dynamical": "strict" }))], "400 mapper_parsing_exception"),
        create_index(&[("/settings/index", json!({ "gc_delete": "1h" }))], "400 illegal_argument_exception"),
        create_index(&[], "200"),
        create_index(&[], "400 resource_already_exists_exception"),
        row("HEAD", "_alias/millrace-test", "", "200"),
        row("HEAD", "millrace-test", "", "200"),
        row("PUT", "millrace-test", json!({}), "400 invalid_index_name_exception"),
        row("DELETE", "millrace-test", "", "400 illegal_argument_exception"),
        row("POST", "millrace-others/_refresh", "", "404 index_not_found_exception"),
        row("POST", "millrace-others/_search", json!({}), "404 index_not_found_exception"),
        row("POST", "millrace-test/_nothing", "", "400"),
        // An operator removes the alias, and the product adds it again.
        row("DELETE", "millrace-test-1/_alias/millrace-test", "", "200"),
        row("DELETE", "millrace-test-1/_alias/millrace-test", "", "404 aliases_not_found_exception"),
        row("HEAD", "_alias/millrace-test", "", "404"),
        row("PUT", "millrace-test-1/_alias/millrace-test", "", "200"),
        row("PUT", "millrace-test-1/_alias/millrace-test", "", "200"),
        row("PUT", "millrace-test-9/_alias/millrace-test", "", "404 index_not_found_exception"),
    ]
}

/// The lines of a bulk request: a document.
fn index_line(version: i64, kind: &str, source: &str) -> String {
    format!("{{\"index\":{{\"_id\":\"1\",\"version\":{version},\"version_type\":\"{kind}\"}}}}\n{source}\n")
}

/// The line of a bulk request: a removal.
const DELETE_LINE: &str = "{\"delete\":{\"_id\":\"1\",\"version\":1,\"version_type\":\"external_gte\"}}\n";

fn bulks() -> Vec<Row> {
    let bulk = |body: String, expected| row("POST", "millrace-test/_bulk?require_alias=true", body, expected);
    let valid = index_line(1, "external", "{\"id\":1}");
    let with_type = |content_type, expected| Row { content_type, ..bulk(valid.clone(), expected) };
    let invalid = "400 action_request_validation_exception";
    let malformed = "400 illegal_argument_exception";
    vec![
        bulk(valid.clone(), "200: 201"),
        with_type(JSON, "200: 409 version_conflict_engine_exception"),
        with_type("text/plain", "406"),
        bulk(valid.trim_end().to_owned(), malformed),
        bulk(valid.lines().next().unwrap_or_default().to_owned() + "\n", invalid),
        bulk("{\"id\":1}\n".to_owned() + &valid, malformed),
        bulk(valid.replace("version_type", "versiontype"), malformed),
        bulk(valid.replace("index", "upsert"), malformed),
        bulk(DELETE_LINE.to_owned() + "{\"id\":1}\n", malformed),
        bulk("[]\n".to_owned(), malformed),
        bulk("\n".to_owned(), invalid),
        bulk(DELETE_LINE.replace("\"_id\":\"1\",", ""), invalid),
        bulk(index_line(-1, "external", "{\"id\":1}"), invalid),
        bulk(index_line(2, "internal", "{\"id\":1}"), invalid),
        bulk(index_line(2, "external", "{\"colour\":1}"), "200: 400 strict_dynamic_mapping_exception"),
        bulk(index_line(2, "external", "{\"id\":"), "200: 400 mapper_parsing_exception"),
        bulk(index_line(1, "external_gte", "{\"id\":1}") + DELETE_LINE + DELETE_LINE, "200: 200, 200, 404"),
        bulk(valid.clone(), "200: 409 version_conflict_engine_exception"),
        row("POST", "millrace-test/_bulk?require=true", &valid, malformed),
    ]
}

/// Writes to an alias that does not exist.
fn missing_alias() -> Vec<Row> {
    let name = "millrace-others";
    let bulk = |body: String, expected| row("POST", &format!("{name}/_bulk?require_alias=true"), body, expected);
    let document = index_line(1, "external", "{\"id\":1}");
    let removal = format!("{name}/_doc/1?version=1&version_type=external_gte");
    let mut other = create_index(&[("/aliases", json!({ name: {} }))], "400 invalid_alias_name_exception");
    other.path = "millrace-others-1".into();
    vec![
        row("PUT", &format!("{removal}&require_alias=true"), json!({ "id": 1 }), "404 index_not_found_exception"),
        bulk(document.clone(), "200: 404 index_not_found_exception"),
        bulk(document.clone() + DELETE_LINE, "200: 404 index_not_found_exception, 404 index_not_found_exception"),
        row("HEAD", name, "", "404"),
        // A removal creates an index with this name, and the alias can no longer be created.
        row("DELETE", &removal, "", "404"),
        row("HEAD", name, "", "200"),
        row("HEAD", &format!("_alias/{name}"), "", "404"),
        other,
        row("PUT", &format!("{INDEX}/_alias/{name}"), "", "400 invalid_alias_name_exception"),
        bulk(document + DELETE_LINE, "200: 404 index_not_found_exception, 404"),
        row("DELETE", name, "", "200"),
        row("DELETE", name, "", "404 index_not_found_exception"),
        bulk(DELETE_LINE.to_owned(), "200: 404"),
        row("HEAD", name, "", "200"),
    ]
}

fn documents() -> Vec<Row> {
    let put = |parameters: &str, body: Value, expected| {
        row("PUT", &format!("millrace-test/_doc/2?require_alias=true&{parameters}"), body, expected)
    };
    let delete =
        |parameters: &str, expected| row("DELETE", &format!("millrace-test/_doc/2?{parameters}"), "", expected);
    let version = "version=1&version_type=external";
    let wrong = |source: Value, expected| put("version=9&version_type=external", source, expected);
    let malformed = "400 mapper_parsing_exception";
    vec![
        put(version, json!({ "id": 1, "title": "x", "key": null, "date": "2026-11-21T10:00:00.123456Z" }), "201"),
        put(version, json!({ "id": 1 }), "409 version_conflict_engine_exception"),
        put("version=1&version_type=external_gte", json!({ "id": 1 }), "200"),
        put("version=-1&version_type=external", json!({ "id": 1 }), "400 action_request_validation_exception"),
        put("version=2", json!({ "id": 1 }), "400 action_request_validation_exception"),
        put("versions=2", json!({ "id": 1 }), "400 illegal_argument_exception"),
        wrong(json!({ "colour": "red" }), "400 strict_dynamic_mapping_exception"),
        wrong(json!({ "id": "one" }), malformed),
        wrong(json!({ "date": "tomorrow" }), malformed),
        wrong(json!([1]), malformed),
        row("PUT", "millrace-test/_doc/2?version=9&version_type=external", "{", malformed),
        row("PUT", "millrace-test/_doc/2?version=9&version_type=external", "", "400 parse_exception"),
        delete("version=0&version_type=external_gte", "409 version_conflict_engine_exception"),
        delete("version=1&version_type=external_gte", "200"),
        delete("version=1&version_type=external_gte", "404"),
        delete("version=1&version_type=external_gte&require_alias=true", "400 illegal_argument_exception"),
        put(version, json!({ "id": 1 }), "409 version_conflict_engine_exception"),
    ]
}

fn searches() -> Vec<Row> {
    let search = |body: Value, expected| row("POST", "millrace-test/_search", body, expected);
    let query = |query: Value, expected| search(json!({ "query": query }), expected);
    let multi_match = |name: &str, value: Value, expected| {
        let mut inner = json!({ "query": "x", "fields": ["title"] });
        inner[name] = value;
        query(json!({ "multi_match": inner }), expected)
    };
    let (parsing, failed) = ("400 parsing_exception", "400 search_phase_execution_exception");
    let illegal = "400 illegal_argument_exception";
    let by_id = json!([{ "id": { "order": "asc" } }]);
    vec![
        search(json!({}), "200"),
        search(json!({ "limit": 1 }), parsing),
        search(json!({ "size": 10_000 }), "200"),
        search(json!({ "size": 10_001 }), failed),
        search(json!({ "size": "ten" }), "400 number_format_exception"),
        search(json!({ "track_total_hits": "no" }), "400 number_format_exception"),
        search(json!({ "track_total_hits": 1000, "_source": ["id"] }), "200"),
        search(json!({ "_source": 5 }), parsing),
        search(json!({ "search_after": [1] }), failed),
        search(json!({ "sort": by_id, "search_after": [i64::MIN] }), "200"),
        search(json!({ "sort": by_id, "search_after": ["x"] }), failed),
        search(json!({ "sort": by_id, "search_after": [1, 2] }), failed),
        search(json!({ "sort": [{ "title": { "order": "asc" } }] }), failed),
        search(json!({ "sort": [{ "nothing": { "order": "asc" } }] }), failed),
        search(json!({ "sort": [{ "id": { "ordering": "asc" } }] }), "400 x_content_parse_exception"),
        query(json!({}), illegal),
        query(json!({ "match_all": {}, "term": {} }), parsing),
        query(json!({ "multimatch": {} }), parsing),
        query(json!({ "match_all": { "x": 1 } }), parsing),
        query(json!({ "term": {} }), illegal),
        query(json!({ "term": { "key": { "value": "x", "boots": 1 } } }), parsing),
        query(json!({ "term": { "key": { "value": "x" }, "title": { "value": "x" } } }), parsing),
        query(json!({ "bool": { "must": [], "musty": [] } }), "400 x_content_parse_exception"),
        query(json!({ "bool": { "should": [{ "match_all": {} }], "minimum_should_match": 1 } }), "200"),
        query(json!({ "dis_max": { "queries": [{ "match_all": {} }], "x": 1 } }), parsing),
        query(json!({ "constant_score": { "filter": { "match_all": {} }, "x": 1 } }), parsing),
        multi_match("boots", json!(2), parsing),
        multi_match("type", json!("any"), "400 parse_exception"),
        multi_match("operator", json!("xor"), illegal),
        multi_match("fuzziness", json!("MUCH"), illegal),
        multi_match("fuzziness", json!("AUTO"), "200"),
        query(json!({ "multi_match": { "query": "x", "type": "phrase", "fuzziness": "AUTO" } }), parsing),
        row("POST", "millrace-test/_search?limit=1", json!({}), illegal),
    ]
}

/// The status, then the type of the error or the status and the type of each result of a bulk request.
fn describe(status: u64, body: &Value) -> String {
    let error = |of: &Value| of["error"]["type"].as_str().map(|kind| format!(" {kind}")).unwrap_or_default();
    let items = body["items"].as_array().into_iter().flatten();
    let results = items.filter_map(|item| item.as_object()?.values().next());
    let results: Vec<String> = results.map(|result| format!("{}{}", result["status"], error(result))).collect();
    let separator = if results.is_empty() { "" } else { ": " };
    format!("{status}{}{separator}{}", error(body), results.join(", "))
}

async fn assert_responses(url: &str) {
    let client = process::http_client();
    let mut differences = Vec::new();
    for Row { method, path, content_type, body, expected } in
        [indexes(), bulks(), missing_alias(), documents(), searches()].into_iter().flatten()
    {
        let request = client.request(method.parse().expect("a method"), format!("{url}/{path}"));
        let request = if body.is_empty() { request } else { request.header("content-type", content_type) };
        let response = request.body(body.clone()).send().await.expect("a response");
        let status = response.status().as_u16().into();
        let text = response.text().await.expect("a body");
        let found = describe(status, &serde_json::from_str(&text).unwrap_or_default());
        if found != expected {
            differences.push(format!("{method} {path} {content_type} {body}\n  {found}, not {expected}: {text}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn fake_elasticsearch_responds_like_a_real_engine() {
    assert_responses(&FakeElasticsearch::start().await.url()).await;
}

#[tokio::test]
async fn a_real_engine_responds_as_expected() {
    let Some(engine) = search_engine::lease().await else { return };
    assert_responses(&engine.url()).await;
}
