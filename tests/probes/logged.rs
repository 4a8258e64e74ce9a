//! Log events, their fields, and counters of the probes, as the contract names them.

use serde_json::{Value, json};

use super::ProbeHarness;
use crate::harness::eventually;

/// Waits for this many log lines of one request. Returns them in their order, without the general fields.
async fn log_lines(harness: &ProbeHarness, correlation_id: &str, count: usize) -> Vec<Value> {
    let found = || -> Vec<Value> {
        let log = harness.apis[0].process.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        // sqlx writes a line about a statement that takes longer than 1 s, as on a busy machine.
        let is_of_sqlx = |line: &Value| line["target"].as_str().is_some_and(|target| target.starts_with("sqlx"));
        lines.filter(|line| line["correlation_id"] == correlation_id && !is_of_sqlx(line)).collect()
    };
    let what = format!("{count} log lines of {correlation_id}");
    eventually(&what, std::time::Duration::from_secs(10), async || found().len() >= count).await;
    let mut found = found();
    for line in &mut found {
        assert_eq!(line["level"], "info", "{line}");
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        for field in ["level", "timestamp", "correlation_id", "target", "route"] {
            line.as_object_mut().expect("an object").remove(field);
        }
        if line["event"] == "COMPLETED_REQUEST" {
            assert!(line["duration_ms"].is_f64(), "{line}");
            line.as_object_mut().expect("an object").remove("duration_ms");
        }
    }
    found
}

fn incremented_to(event: &str, new_value: f64) -> Value {
    json!({"event": event, "operation": "increment", "new_value": new_value})
}

fn completed(method: &str, path: &str, status: u16) -> Value {
    json!({"event": "COMPLETED_REQUEST", "method": method, "path": path, "status_code": status})
}

fn with_status(mut line: Value, status: &str) -> Value {
    line["status"] = status.into();
    line
}

#[tokio::test]
async fn log_events_and_counters_match_the_contract() {
    let harness = ProbeHarness::start(1).await;
    let counters =
        ["probe_created_total", "probe_commands_total", "probe_invalid_setups_total", "probe_invalid_commands_total"];
    for counter in counters {
        assert_eq!(harness.counter_value(counter).await, 0, "{counter} is 0 at the start");
    }
    let setup = harness.set_up(json!({"x": 10, "y": 10, "direction": "NORTH"})).await;
    let probe = setup.json()["id"].clone();
    let id = probe.as_str().expect("an id");
    let logged = log_lines(&harness, setup.header("x-correlation-id"), 4).await;
    let grid_id = logged[0]["grid_id"].clone();
    assert!(grid_id.as_str().is_some_and(|id| id.len() == 36), "{logged:?}");
    let created = json!({
        "event": "PROBE_CREATED", "grid_id": grid_id, "grid_x": 10, "grid_y": 10,
        "probe_id": probe, "probe_x": 0, "probe_y": 0, "probe_direction": "NORTH",
    });
    let expected = [
        with_status(created.clone(), "started"),
        incremented_to("PROBE_CREATED_TOTAL", 1.0),
        with_status(created, "finished"),
        completed("POST", "/api/v1/setup", 200),
    ];
    assert_eq!(logged, expected);

    let moved = harness.move_probe(id, "mmmrmmm").await;
    let sent = json!({
        "event": "PROBE_COMMAND_SENT", "probe_id": probe, "command": "MMMRMMM", "from_x": 0, "from_y": 0,
        "from_direction": "NORTH", "to_x": 3, "to_y": 3, "to_direction": "EAST",
    });
    let expected = [
        with_status(sent.clone(), "started"),
        incremented_to("PROBE_COMMANDS_TOTAL", 1.0),
        with_status(sent, "finished"),
        completed("PATCH", "/api/v1/move", 200),
    ];
    assert_eq!(log_lines(&harness, moved.header("x-correlation-id"), 4).await, expected);

    let refused = harness.set_up(json!({"x": 0, "y": 0, "direction": "NORTH"})).await;
    let expected = [
        incremented_to("PROBE_INVALID_SETUPS_TOTAL", 1.0),
        json!({"event": "PROBE_INVALID_SETUP", "errors": "body value_error"}),
        completed("POST", "/api/v1/setup", 422),
    ];
    assert_eq!(log_lines(&harness, refused.header("x-correlation-id"), 3).await, expected);

    let refused = harness.move_probe(id, "X").await;
    let detail = refused.json()["detail"].clone();
    let expected = [
        incremented_to("PROBE_INVALID_COMMANDS_TOTAL", 1.0),
        json!({"event": "PROBE_INVALID_COMMAND", "probe_id": probe, "code": detail["code"], "detail": detail["message"]}),
        completed("PATCH", "/api/v1/move", 400),
    ];
    assert_eq!(log_lines(&harness, refused.header("x-correlation-id"), 3).await, expected);
    for (probe, command) in [(id, "RMMMM"), ("75cf11e0-f5d5-4dd7-b895-22e7e3d66fa8", "M"), ("no id", "")] {
        assert_ne!(harness.move_probe(probe, command).await.status, 200);
    }

    let long = harness.move_probe(id, &"MRMRMRMR".repeat(1000)).await;
    let logged = log_lines(&harness, long.header("x-correlation-id"), 4).await;
    assert_eq!(logged[0]["command"], format!("{}… (8000 characters)", "MRMRMRMR".repeat(32)));
    for (counter, value) in counters.into_iter().zip([1, 2, 1, 4]) {
        assert_eq!(harness.counter_value(counter).await, value, "{counter}");
    }
}
