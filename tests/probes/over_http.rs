//! The endpoints over HTTP: error codes, messages and validation texts, which existing clients match on.

use reqwest::Method;
use serde_json::{Value, json};

use super::ProbeHarness;

/// `type`, `loc` and `msg`, as text.
fn failure(kind: &str, loc: &str, msg: &str) -> (String, String, String) {
    (kind.into(), loc.into(), msg.into())
}

#[tokio::test]
async fn the_documented_examples_work() {
    let harness = ProbeHarness::start(1).await;
    let response = harness.set_up(json!({"x": 5, "y": 5, "direction": "NORTH"})).await;
    assert_eq!(response.status, 200, "{response:?}");
    let id = response.json()["id"].clone();
    assert_eq!(response.json(), json!({"id": id, "x": 0, "y": 0, "direction": "NORTH"}));
    let id = id.as_str().expect("an id");
    let moved = harness.move_probe(id, "MRM").await;
    assert_eq!((moved.status, moved.json()), (200, json!({"id": id, "x": 1, "y": 1, "direction": "EAST"})));
    // The id may come in another notation. The response has the canonical one.
    let moved = harness.move_probe(&format!("urn:uuid:{}", id.to_uppercase()), " lmR\n").await;
    assert_eq!(moved.json(), json!({"id": id, "x": 1, "y": 2, "direction": "EAST"}));
    let checked = harness.list_probes("").await;
    let expected = json!({"probes": [{"id": id, "x": 1, "y": 2, "direction": "EAST"}]});
    assert_eq!((checked.json(), checked.header("content-type")), (expected, "application/json"));
}

#[tokio::test]
async fn refusals_have_the_texts_and_order_of_the_contract() {
    let harness = ProbeHarness::start(1).await;
    let id = harness.create_probe(3, 0, "NORTH").await;
    let unknown = "75cf11e0-f5d5-4dd7-b895-22e7e3d66fa8";
    let not_found = format!("Probe {unknown} not found.");
    let no_command = |letter: &str| {
        format!(
            "The command '{letter}' does not exist. The existent commands are: M, L, R. For security, no commands were \
             delivered to the probe."
        )
    };
    let wall = "Movement outside grid limits. The probe must not exceed the grid size of (3, 0). For security, no commands \
                were delivered to the probe.";
    for (id, command, status, code, message) in [
        (unknown, "M", 404, "PROBE_NOT_FOUND", not_found.clone()),
        (unknown, "X", 404, "PROBE_NOT_FOUND", not_found.clone()),
        ("75CF11E0F5D54DD7B89522E7E3D66FA8", "M", 404, "PROBE_NOT_FOUND", not_found.clone()),
        (&id, "MxZ", 400, "INVALID_COMMAND_ERROR", no_command("X")),
        (&id, "M M", 400, "INVALID_COMMAND_ERROR", no_command(" ")),
        (&id, "é", 400, "INVALID_COMMAND_ERROR", no_command("É")),
        (&id, "RMß", 400, "INVALID_COMMAND_ERROR", no_command("S")),
        (&id, "🚀", 400, "INVALID_COMMAND_ERROR", no_command("🚀")),
        (&id, "M\0", 400, "INVALID_COMMAND_ERROR", no_command("\0")),
        (&id, "'", 400, "INVALID_COMMAND_ERROR", no_command("'")),
        (&id, "M", 422, "INVALID_MOVEMENT_ERROR", wall.into()),
        (&id, "RMMMM", 422, "INVALID_MOVEMENT_ERROR", wall.into()),
    ] {
        let response = harness.move_probe(id, command).await;
        let problem = response.assert_problem(status, command);
        assert_eq!(problem["detail"], json!({"code": code, "message": message}), "{command}");
    }
    assert_eq!(harness.list_probes("").await.json()["probes"][0]["x"], 0, "a refused command moves nothing");
    assert_eq!(harness.move_probe(&id, "RMMM").await.status, 200);
}

#[tokio::test]
async fn invalid_setups_get_pydantic_messages() {
    let harness = ProbeHarness::start(1).await;
    let setup = async |body: &str| {
        let response = harness.send(Method::POST, "/api/v1/setup", body).await;
        response.assert_problem(422, body);
        response
    };
    let (x, y, direction) = (r#"["body","x"]"#, r#"["body","y"]"#, r#"["body","direction"]"#);
    let unparsed = "Input should be a valid integer, unable to parse string as an integer";
    let fraction = "Input should be a valid integer, got a number with a fractional part";
    let one_of = "Input should be 'NORTH', 'SOUTH', 'EAST' or 'WEST'";
    let below = "Input should be greater than or equal to 0";
    let missing = [x, y, direction].map(|loc| failure("missing", loc, "Field required"));
    assert_eq!(setup("{}").await.validation_errors(), missing);
    let wrong = setup(r#"{"x":-1,"y":1.5,"direction":"north"}"#).await;
    let all = [
        failure("greater_than_equal", x, below),
        failure("int_from_float", y, fraction),
        failure("enum", direction, one_of),
    ];
    assert_eq!(wrong.validation_errors(), all, "all fields at once");
    let detail = wrong.json()["detail"].clone();
    assert_eq!(detail[2]["ctx"], json!({"expected": "'NORTH', 'SOUTH', 'EAST' or 'WEST'"}));
    assert_eq!((&detail[0]["ctx"], &detail[0]["input"]), (&json!({"ge": 0}), &json!(-1)));
    for (value, kind, msg) in [
        ("\"five\"", "int_parsing", unparsed),
        ("\"\"", "int_parsing", unparsed),
        ("null", "int_type", "Input should be a valid integer"),
        ("[]", "int_type", "Input should be a valid integer"),
        ("2147483648", "less_than_equal", "Input should be less than or equal to 2147483647"),
        ("1e400", "less_than_equal", "Input should be less than or equal to 2147483647"),
    ] {
        let response = setup(&format!(r#"{{"x":{value},"y":5,"direction":"EAST"}}"#)).await;
        assert_eq!(response.validation_errors(), [failure(kind, x, msg)], "{value}");
    }
    for value in ["5", "null", "\" NORTH \"", "\"UP\"", "\"\""] {
        let response = setup(&format!(r#"{{"x":5,"y":5,"direction":{value}}}"#)).await;
        assert_eq!(response.validation_errors(), [failure("enum", direction, one_of)], "{value}");
    }
    let both = setup(r#"{"x":0,"y":false,"direction":"EAST"}"#).await;
    assert_eq!(
        both.validation_errors(),
        [failure("value_error", r#"["body"]"#, "Value error, X and Y cannot both be zero")]
    );
    let one = setup(r#"{"x":0,"y":0,"direction":"UP"}"#).await;
    assert_eq!(
        one.validation_errors(),
        [failure("enum", direction, one_of)],
        "the body as a whole is validated after its fields"
    );
    for value in ["5", "5.0", "\"5\"", "\" 5 \"", "true", "2147483647"] {
        let body = format!(r#"{{"x":{value},"y":0,"direction":"WEST"}}"#);
        assert_eq!(harness.send(Method::POST, "/api/v1/setup", &*body).await.status, 200, "{body}");
    }
    harness.send(Method::POST, "/api/v1/setup", "{").await.assert_problem(400, "no JSON");
}

#[tokio::test]
async fn invalid_moves_get_pydantic_messages() {
    let harness = ProbeHarness::start(1).await;
    let id = harness.create_probe(1, 1, "NORTH").await;
    let move_probe = async |body: Value| {
        let response = harness.send(Method::PATCH, "/api/v1/move", body.to_string()).await;
        response.assert_problem(422, &body.to_string());
        response.validation_errors()
    };
    let (at_id, at_command) = (r#"["body","id"]"#, r#"["body","command"]"#);
    let missing = [at_id, at_command].map(|loc| failure("missing", loc, "Field required"));
    assert_eq!(move_probe(json!({})).await, missing);
    let unparsed = "Input should be a valid UUID, invalid character: found `n` at 0";
    let short = "String should have at least 1 character";
    let both = [failure("uuid_parsing", at_id, unparsed), failure("string_too_short", at_command, short)];
    assert_eq!(move_probe(json!({"id": "no-id", "command": ""})).await, both);
    let no_text = failure("uuid_type", at_id, "UUID input should be a string, bytes or UUID object");
    assert_eq!(move_probe(json!({"id": 5, "command": "M"})).await, [no_text]);
    for blank in [" ", "\n\t", "\u{a0}"] {
        let blank = move_probe(json!({"id": id, "command": blank})).await;
        assert_eq!(blank, [failure("string_too_short", at_command, short)], "whitespace is stripped first");
    }
    let no_text = failure("string_type", at_command, "Input should be a valid string");
    assert_eq!(move_probe(json!({"id": id, "command": 5})).await, [no_text]);
}

#[tokio::test]
async fn the_longest_command_that_fits_is_accepted() {
    let harness = ProbeHarness::start(1).await;
    let id = harness.create_probe(1, 1, "NORTH").await;
    let empty = json!({"id": id, "command": ""}).to_string().len();
    let command = "MRMRMRMR".repeat(((1 << 20) - empty) / 8);
    assert_eq!(harness.move_probe(&id, &command).await.json(), json!({"id": id, "x": 0, "y": 0, "direction": "NORTH"}));
    harness.move_probe(&id, &"M".repeat(1 << 20)).await.assert_problem(413, "one byte of JSON too many");
}
