//! Compares responses with the schemas of `openapi.json`: the values come from the service, and the schemas are separate.

use serde_json::{Value, json};

use super::{QUEUE, SOON, System, in_time, system};
use crate::harness::{eventually, process::start_worker};

/// What differs between a value and its schema, by the path of the field.
fn differences(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).expect("a schema");
        return differences(document, schema, value, at, found);
    }
    if value.is_null() {
        if schema["nullable"] != true && !schema["type"].is_null() {
            found.push(format!("{at} is null"));
        }
        return;
    }
    if let Some(referred) = schema["allOf"].get(0) {
        return differences(document, referred, value, at, found);
    }
    if let Some(names) = schema["enum"].as_array()
        && !names.contains(value)
    {
        found.push(format!("{at} is {value}"));
    }
    let is_right = match schema["type"].as_str() {
        None => true,
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("array") => value.is_array(),
        Some(_) => value.is_object(),
    };
    if !is_right {
        found.push(format!("{at} is {value} instead of {}", schema["type"]));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        differences(document, &schema["items"], item, &format!("{at}[{index}]"), found);
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(schema), _) | (None, Some(schema)) => differences(document, schema, field, &at, found),
            (None, None) if schema["type"] == "object" => found.push(format!("{at} is not documented")),
            (None, None) => {}
        }
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    found.extend(required.filter(|name| value.get(*name).is_none()).map(|name| format!("{at}.{name} is absent")));
}

impl System {
    /// What differs between a response and the document.
    async fn compare(&self, document: &Value, route: &str, path: &str) -> Vec<String> {
        let response = in_time::view(self.as_admin(reqwest::Method::GET, path)).await;
        assert_eq!(response.status, 200, "{path}: {response:?}");
        let value: Value = serde_json::from_str(&response.text).expect("JSON");
        let is_filled = value.as_array().is_none_or(|all| !all.is_empty());
        assert!(is_filled, "{path} has no entry to compare");
        let schema = &document["paths"][route]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{route}");
        let mut found = Vec::new();
        differences(document, schema, &value, path, &mut found);
        found
    }
}

#[tokio::test]
async fn every_response_has_exactly_the_documented_fields() {
    let system = system().await;
    let document: Value = serde_json::from_str(include_str!("../../../api/openapi.json")).expect("JSON");
    let job = system.send_transaction("dead").await;
    system.let_all_die().await;
    let _worker = start_worker(&system.database.url, &[("QUEUE_HEARTBEAT_SECONDS", "0.1")]).await;
    let workers = async || system.viewed("/admin/queue/workers").await;
    eventually("the worker has reported", SOON, async || workers().await[0]["report"].is_object()).await;
    let worker = workers().await[0]["id"].as_str().expect("an id").to_owned();
    let body = json!({"queue": QUEUE, "reason": "r", "limit": 1, "rate": 0.001, "canary": 0});
    let replay = system.act("/admin/queue/dead/replay", body).await.header("location").to_owned();
    let pause = format!("/admin/queue/queues/{QUEUE}/pause");
    assert_eq!(system.act(&pause, json!({"reason": "r", "until": "1h"})).await.status, 200);
    let second = system.send_transaction("second").await;
    system.let_all_die().await;
    let waiting = system.send_transaction("waiting").await;
    let root = "/admin/queue";
    let fire = system.act("/admin/queue/schedules/daily_prices/fire", json!({"reason": "r"})).await;
    assert_eq!((fire.status, &fire.json()["result"]), (200, &"12".into()), "{fire:?}");
    assert_eq!(system.act("/admin/queue/schedules/daily_prices/skip-next", json!({"reason": "r"})).await.status, 200);
    system.execute("INSERT INTO callback_destinations VALUES ('acme', now(), now(), '410 Gone')").await;
    let mut found = Vec::new();
    for (route, path) in [
        ("/overview", "/overview".to_owned()),
        ("/queues", "/queues".to_owned()),
        ("/queues/{name}", format!("/queues/{QUEUE}")),
        ("/jobs", "/jobs".to_owned()),
        ("/jobs/{id}", format!("/jobs/{second}?payload=true")),
        ("/jobs/{id}/why", format!("/jobs/{waiting}/why")),
        ("/dead", "/dead".to_owned()),
        ("/replays", "/replays".to_owned()),
        ("/replays/{id}", replay.trim_start_matches(root).to_owned()),
        ("/workers", "/workers".to_owned()),
        ("/workers/{id}", format!("/workers/{worker}")),
        ("/schedules", "/schedules".to_owned()),
        ("/schedules/{name}/fires", "/schedules/daily_prices/fires".to_owned()),
        ("/actions", "/actions".to_owned()),
        ("/callbacks", "/callbacks".to_owned()),
        ("/doctor", "/doctor".to_owned()),
        ("/scale", "/scale?objective=5s&drain_in=1h".to_owned()),
        ("/queues/{name}/trends", format!("/queues/{QUEUE}/trends?window=24h")),
        ("/find", format!("/find?q={job}")),
    ] {
        found.extend(system.compare(&document, &format!("{root}{route}"), &format!("{root}{path}")).await);
    }
    let timeline = "/v1/transactions/{transaction_id}/timeline";
    found.extend(system.compare(&document, timeline, "/v1/transactions/second/timeline").await);
    assert_eq!(found, Vec::<String>::new());
}
