//! Receivers that are written with the libraries of Standard Webhooks verify what a worker sends.

use std::{path::Path, process::Command};

use reqwest::RequestBuilder;
use serde_json::Value;

use super::{ACME, DELIVERED, NEW, OLD, System, secret, variables};
use crate::harness::{http::send, node, process::Process, python, scratch::Scratch};

const PYTHON: [&str; 1] = ["standardwebhooks==1.1.0"];
const NODE: [&str; 1] = ["standardwebhooks@1.1.1"];
/// A secret that signs no callback.
const OTHER: &[u8] = b"the secret of another receiver";

/// The paths of a receiver, and the secret that it knows at each: before the rotation, after it, and a wrong one.
fn paths() -> [String; 3] {
    [("/old", OLD), ("/new", NEW), ("/other", OTHER)].map(|(path, key)| format!("{path}={}", secret(key)))
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transactions/callbacks").join(name)
}

#[tokio::test]
async fn the_python_library_verifies_callbacks() {
    let Some(packages) = python::packages(&PYTHON) else { return };
    let mut receiver = Command::new("python3");
    receiver.arg(script("receiver.py")).args(paths());
    assert_verifies(Process::run("receiver.py", receiver, &[packages.variable()])).await;
}

#[tokio::test]
async fn the_javascript_library_verifies_callbacks() {
    let Some(packages) = node::packages(&NODE) else { return };
    let folder = Scratch::new();
    std::os::unix::fs::symlink(packages.join("node_modules"), folder.join("node_modules")).expect("a link");
    std::fs::copy(script("receiver.mjs"), folder.join("receiver.mjs")).expect("a copy");
    let mut receiver = Command::new("node");
    receiver.arg(folder.join("receiver.mjs")).args(paths()).current_dir(&*folder);
    assert_verifies(Process::run("receiver.mjs", receiver, &[])).await;
}

/// While a secret is rotated, a worker's message is accepted by a receiver that knows the old one, and by a receiver that knows
/// the new one. Messages that are forged are refused.
async fn assert_verifies(mut receiver: Process) {
    let line = receiver.wait_for_line("listening on ").await;
    let base = format!("http://127.0.0.1:{}", line.rsplit(' ').next().expect("a port"));
    let url = format!("acme:{base}/new,{base}/old");
    let secrets = format!("{},{}", secret(OLD), secret(NEW));
    let signers = format!("acme:{},{}", secret(ACME), secret(OLD));
    let variables = [variables(&url, &secrets), vec![("WEBHOOK_SECRET", &signers)]].concat();
    let system = System::start(&variables).await;
    let _worker = system.start_worker(&variables).await;
    system.send_signed("of-acme", ACME).await;
    system.send_signed("of-another", OLD).await;
    system.wait_for_count(DELIVERED, 2).await;
    assert_eq!(system.count("SELECT max(attempts)::int8 FROM callbacks").await, 1, "nothing was refused");

    for (id, path) in [("of-acme", "/new"), ("of-another", "/old")] {
        let line = receiver.wait_for_line(id).await;
        let accepted: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(accepted["path"], path);
        let message = &accepted["message"];
        assert_eq!(
            (&message["type"], &message["data"]["transaction_id"]),
            (&"transaction.processed".into(), &id.into())
        );
        let body = accepted["body"].as_str().expect("a body");
        let forged = body.replace("1500", "9500");
        assert_ne!(body, forged);
        for (case, path, body, status) in [
            ("the same message", path, body, 204),
            ("by the old secret", "/old", body, 204),
            ("by the new secret", "/new", body, 204),
            ("by another secret", "/other", body, 401),
            ("another body", path, &forged, 401),
        ] {
            let response = send(signed(&system, &format!("{base}{path}"), &accepted["headers"], body)).await;
            assert_eq!(response.status, status, "{id}: {case}: {response:?}");
        }
        let mut headers = accepted["headers"].clone();
        headers["webhook-id"] = "another".into();
        let response = send(signed(&system, &format!("{base}{path}"), &headers, body)).await;
        assert_eq!(response.status, 401, "{id}: another id: {response:?}");
    }
}

/// A request with these headers.
fn signed(system: &System, url: &str, headers: &Value, body: &str) -> RequestBuilder {
    let headers = headers.as_object().expect("headers");
    headers.iter().fold(system.client.post(url).body(body.to_owned()), |request, (name, value)| {
        request.header(name, value.as_str().expect("a text"))
    })
}
