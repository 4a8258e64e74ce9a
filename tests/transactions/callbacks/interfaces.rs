//! The interfaces of callbacks: test messages over HTTP, and the command line.

use reqwest::Method;
use serde_json::Value;

use super::{ACME, FakeReceiver, NEW, Reply, SOON, System, secret, variables};
use crate::harness::{
    http::{HttpResponse, send},
    process::Process,
};

const TEST: &str = "/v1/callbacks/test";

async fn post_test(system: &System, path: &str) -> HttpResponse {
    send(system.request(Method::POST, path).header("x-api-key", "your-admin-api-key-here")).await
}

#[tokio::test]
async fn a_test_message_is_sent_over_http() {
    let receiver = FakeReceiver::start(&[Reply::OK, Reply::status(403)], Reply::status(410)).await;
    let url = format!("acme:{0}/acme,{0}/rest", receiver.url);
    let secrets = format!("acme:{},{}", secret(ACME), secret(NEW));
    let system = System::start(&variables(&url, &secrets)).await;
    for (path, destination, delivered, status, error) in [
        (TEST.to_owned(), "", true, 204, None),
        (format!("{TEST}?destination=acme"), "acme", false, 403, Some("callback returned 403 Forbidden: the reason")),
        (TEST.to_owned(), "", false, 410, Some("callback returned 410 Gone: the reason")),
    ] {
        let response = post_test(&system, &path).await;
        let body = response.json();
        assert_eq!((response.status, &body["destination"]), (200, &destination.into()), "{response:?}");
        assert_eq!(
            (&body["delivered"], &body["status"], body["error"].as_str()),
            (&delivered.into(), &status.into(), error)
        );
        let message = receiver.messages().pop().expect("a message");
        assert_eq!(message.id(), body["webhook_id"].as_str().expect("an id"));
        assert_eq!(message.path, if destination.is_empty() { "/rest" } else { "/acme" });
        assert!(message.is_signed_by(if destination.is_empty() { NEW } else { ACME }));
        let sent = message.json();
        assert_eq!(
            (&sent["type"], &sent["data"]["destination"]),
            (&"callback.test".into(), &destination.into()),
            "{sent}"
        );
    }
    assert_eq!(system.count("SELECT count(*) FROM callback_destinations").await, 0, "a test disables nothing");
    assert_eq!(system.count("SELECT count(*) FROM operator_actions WHERE action = 'test_callbacks'").await, 3);

    let unknown = post_test(&system, &format!("{TEST}?destination=beta")).await;
    assert_eq!(unknown.assert_problem(404, "beta")["detail"], "Unknown destination");
    post_test(&system, &format!("{TEST}?destination=")).await.assert_problem(422, "an empty name");
    assert_eq!(send(system.request(Method::POST, TEST)).await.status, 403, "without a key");
    let open = System::start(&[]).await;
    post_test(&open, TEST).await.assert_problem(409, "CALLBACK_URL is not set");
}

/// Runs `millrace callbacks` as ada, to its end. Returns its exit status and output.
async fn run(system: &System, variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let fixed = [("DATABASE_URL", &*system.database.url), ("MILLRACE_ACTOR", "ada")];
    let mut process = Process::start(&[&["callbacks"], arguments].concat(), &[&fixed[..], variables].concat());
    let status = process.wait_for_exit(SOON).await.code();
    (status, process.log())
}

#[tokio::test]
async fn the_command_line_lists_tests_and_enables_destinations() {
    let receiver = FakeReceiver::start(&[Reply::OK], Reply::status(500)).await;
    let (url, secrets) = (format!("acme:{}/hook?key=hidden", receiver.url), secret(NEW));
    let variables = variables(&url, &secrets);
    let system = System::start(&[]).await;
    let (status, text) = run(&system, &[], &[]).await;
    assert_eq!((status, text.as_str()), (Some(0), "There are no destinations: CALLBACK_URL is not set."));
    let (status, text) = run(&system, &variables, &["test", "acme"]).await;
    assert!(status == Some(0) && text.starts_with("acme has accepted the message: status 204\nwebhook-id 0"), "{text}");
    let (status, text) = run(&system, &variables, &["test", "acme", "--json"]).await;
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, &json["delivered"], &json["status"]), (Some(1), &false.into(), &500.into()), "{text}");
    let (status, text) = run(&system, &variables, &["test"]).await;
    assert!(status == Some(1) && text.contains("there is no destination \"\""), "{text}");

    let disable = "INSERT INTO callback_destinations VALUES ('acme', now(), now(), '410 Gone')";
    sqlx::query(disable).execute(&system.database.pool().await).await.unwrap();
    let (_, table) = run(&system, &variables, &[]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("DESTINATION  STATE") && lines[1].starts_with("acme         disabled "), "{table}");
    assert!(lines[1].contains(&format!("{}/hook", receiver.url)) && lines[1].ends_with("410 Gone"), "{table}");
    assert_eq!(lines[2], "millrace callbacks enable acme --reason '…'");
    let (status, text) = run(&system, &variables, &["enable", "acme", "--reason", "it is back", "--json"]).await;
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, &json[0]["name"], &json[0]["disabled_at"]), (Some(0), &"acme".into(), &Value::Null), "{text}");
    let (status, text) = run(&system, &variables, &["enable", "acme", "--reason", "it is back"]).await;
    assert!(status == Some(1) && text.contains("acme is not disabled"), "{text}");
    let (status, text) = run(&system, &variables, &["enable", "beta", "--reason", "it is back"]).await;
    assert!(status == Some(1) && text.contains("there is no destination \"beta\""), "{text}");
    let actions =
        "SELECT count(*) FROM operator_actions WHERE actor = 'ada' AND via = 'cli' AND target = 'callbacks:acme'";
    assert_eq!(system.count(actions).await, 3, "two tests and one enabling");
    for (_, text) in [run(&system, &variables, &[]).await, run(&system, &variables, &["--json"]).await] {
        assert!(!text.contains("hidden"), "{text}");
    }
}
