//! Disabling: a destination that responds 410, or fails for three days, gets nothing until an operator enables it. Until then it is
//! a problem that every view of the state names.

use reqwest::Method;
use serde_json::{Value, json};

use super::{DELIVERED, FakeReceiver, NEW, Reply, SOON, System, secret, variables};
use crate::harness::{
    eventually,
    http::{HttpResponse, send},
    process::Process,
};

const GIVEN_UP: &str = "SELECT count(*) FROM callbacks WHERE gave_up_at IS NOT NULL";
const DEAD: &str = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'send_callback' AND status = 'Killed'";

impl System {
    /// The response to an order with the operator's key.
    async fn operate(&self, path: &str, body: Value) -> HttpResponse {
        let request = self.request(Method::POST, path).header("x-api-key", "your-admin-api-key-here");
        send(request.header("x-actor", "ada").json(&body)).await
    }
}

#[tokio::test]
async fn a_destination_that_is_gone_is_disabled_until_it_is_enabled_and_replayed() {
    let receiver = FakeReceiver::start(&[], Reply::status(410)).await;
    let secrets = secret(NEW);
    let variables = variables(&receiver.url, &secrets);
    let system = System::start(&variables).await;
    let mut worker = system.start_worker(&variables).await;
    system.send_webhook("first").await;
    system.wait_for_count(DEAD, 1).await;
    system.send_webhook("second").await;
    system.wait_for_count(DEAD, 2).await;
    assert_eq!(receiver.messages().len(), 1, "nothing is sent to a disabled destination");
    assert_eq!(system.count(GIVEN_UP).await, 2);
    assert_eq!(system.count("SELECT max(attempts)::int8 FROM callbacks").await, 1);
    worker.wait_for_line("callbacks to a destination are disabled").await;

    let listed = system.read_view("/admin/queue/callbacks").await;
    let one = &listed[0];
    assert_eq!((&one["name"], &one["disabled_because"], &one["waiting"]), (&"".into(), &"410 Gone".into(), &0.into()));
    assert!(one["disabled_at"].is_string() && one["url"] == format!("{}/", receiver.url), "{listed}");
    let actions = system.read_view("/admin/queue/actions?target=callbacks").await;
    let action = &actions[0];
    let found = ["actor", "via", "action", "reason"].map(|field| action[field].as_str().expect("a text"));
    assert_eq!(found, ["millrace", "worker", "disable_callbacks", "410 Gone"], "{actions}");
    let dead = system.read_view("/admin/queue/jobs?queue=send_callback&state=dead").await;
    let error = dead[0]["last_error"].as_str().expect("an error");
    assert!(
        error.starts_with("callbacks to the common URL are disabled since 20") && error.ends_with(": 410 Gone"),
        "{error}"
    );
    let timeline = system.read_view("/v1/transactions/first/timeline").await;
    // The job that settled it may be done later.
    let mut events = timeline["events"].as_array().expect("events").iter();
    let last = events.rfind(|event| event["event"] == "callback").expect("an event");
    assert!(
        last["text"].as_str().is_some_and(|text| text.contains("was given up after 1 tries: callbacks to")),
        "{last}"
    );

    let enable = async |body: Value| system.operate("/admin/queue/callbacks/enable", body).await;
    enable(json!({"destination": "unknown", "reason": "r"})).await.assert_problem(404, "unknown");
    enable(json!({"reason": " "})).await.assert_problem(422, "no reason");
    let enabled = enable(json!({"reason": "it is back"})).await;
    assert_eq!((enabled.status, &enabled.json()["target"]), (200, &"callbacks".into()), "{enabled:?}");
    enable(json!({"reason": "again"})).await.assert_problem(409, "it is enabled");

    receiver.respond(Reply::OK);
    let replay = json!({"queue": "send_callback", "error": "callbacks to the common URL are disabled", "rate": 1000, "canary": 0,
                        "reason": "it is back"});
    assert_eq!(system.operate("/admin/queue/dead/replay", replay).await.status, 202);
    system.wait_for_count(DELIVERED, 2).await;
    assert_eq!(system.count(GIVEN_UP).await, 0);
    let messages = receiver.messages();
    let first = messages.iter().filter(|one| one.json()["data"]["transaction_id"] == "first");
    let ids: Vec<_> = first.map(|one| (one.id().to_owned(), one.body.clone())).collect();
    assert_eq!((ids.len(), &ids[0]), (2, &ids[1]), "the replay sends the same message");
}

#[tokio::test]
async fn a_destination_that_fails_for_three_days_is_disabled() {
    let receiver = FakeReceiver::start(&[], Reply::status(500)).await;
    let secrets = secret(NEW);
    let variables = variables(&receiver.url, &secrets);
    let system = System::start(&variables).await;
    let _worker = system.start_worker(&variables).await;
    system.send_webhook("t").await;
    let failing = "SELECT count(*) FROM callback_destinations WHERE failing_since > now() - interval '1 min'";
    system.wait_for_count(failing, 1).await;
    assert_eq!(system.count("SELECT count(*) FROM callback_destinations WHERE disabled_at IS NOT NULL").await, 0);
    let pool = system.database.pool().await;
    let age = "UPDATE callback_destinations SET failing_since = now() - interval '3 days 1 s'";
    sqlx::query(age).execute(&pool).await.unwrap();
    system.wait_for_count(DEAD, 1).await;
    let because: String =
        sqlx::query_scalar("SELECT disabled_because FROM callback_destinations").fetch_one(&pool).await.unwrap();
    assert_eq!(because, "it failed for three days: callback returned 500 Internal Server Error: the reason");
    eventually("the failures are counted", SOON, async || {
        system.count("SELECT attempts::int8 FROM callbacks").await
            == i64::try_from(receiver.messages().len()).expect("a number")
    })
    .await;
}

#[tokio::test]
async fn a_disabled_destination_is_a_problem_until_it_is_enabled() {
    let system = System::start(&[]).await;
    let problems = async || system.read_view("/admin/queue/overview").await["problems"].clone();
    let gauge = |state: &str| format!("millrace_callback_destinations{{state=\"{state}\"}}");
    let disable = "INSERT INTO callback_destinations
                   VALUES ('acme', now(), now(), '410 Gone'), ('beta', now(), NULL, NULL)";
    sqlx::query(disable).execute(&system.database.pool().await).await.unwrap();
    // The destinations are read within half a second. If that fails, the problem is that they are not known.
    let mut problem = Value::Null;
    eventually("acme is a problem", SOON, async || {
        problem = problems().await[0].clone();
        problem["text"].as_str().is_some_and(|text| text.starts_with("callbacks to acme were disabled "))
    })
    .await;
    let text = problem["text"].as_str().expect("a text");
    assert!(text.ends_with(" s ago: 410 Gone"), "{text}");
    assert_eq!(
        (&problem["kind"], &problem["link"], &problem["command"]),
        (&"callbacks".into(), &"/board/callbacks".into(), &"millrace callbacks".into())
    );
    let mut log = String::new();
    eventually("the status has the problem", SOON, async || {
        let mut status = Process::start(&["status"], &[("DATABASE_URL", &system.database.url)]);
        assert_eq!(status.wait_for_exit(SOON).await.code(), Some(1));
        log = status.log();
        log.contains("✘ callbacks to acme were disabled ")
    })
    .await;
    assert!(log.contains("\n    millrace callbacks\n"), "{log}");
    for (state, count) in [("disabled", 1), ("failing", 1)] {
        assert_eq!(system.metric(&gauge(state)).await, count, "{state}");
    }

    let enable = json!({"destination": "acme", "reason": "it is back"});
    assert_eq!(system.operate("/admin/queue/callbacks/enable", enable).await.status, 200);
    eventually("one that is failing is no problem", SOON, async || problems().await == json!([])).await;
    assert_eq!(system.metric(&gauge("disabled")).await, 0);
}

/// A worker that has not yet got the new `CALLBACK_URL` sends nothing and counts no failure, and another one sends.
#[tokio::test]
async fn a_callback_without_a_url_waits_for_one() {
    let receiver = FakeReceiver::start(&[], Reply::OK).await;
    let secrets = secret(NEW);
    let with_url = variables(&receiver.url, &secrets);
    let without_url = &with_url[3..];
    let system = System::start(&with_url).await;
    let settling = system.start_worker(&with_url).await;
    receiver.respond(Reply::status(503));
    system.send_webhook("t").await;
    receiver.wait_for(1).await;
    // If the worker is killed before it has written the failure, the job waits for the end of its lease of 15 s.
    let failed = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'send_callback' AND failures > 0";
    system.wait_for_count(failed, 1).await;
    drop(settling);
    let waiting = system.start_worker(without_url).await;
    let snoozed = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'send_callback'
                   AND last_result ->> 'Snoozed' LIKE '%has no URL for the common URL%'
                   AND coalesce(errors::text, '') NOT LIKE '%has no URL%'";
    sqlx::query("UPDATE apalis.jobs SET run_at = now()").execute(&system.database.pool().await).await.unwrap();
    system.wait_for_count(snoozed, 1).await;
    drop(waiting);
    receiver.respond(Reply::OK);
    let _worker = system.start_worker(&with_url).await;
    system.wait_for_count(DELIVERED, 1).await;
}
