//! The operators' HTTP API: who may do what, its effects, its record, and its document.

mod fields;
mod lookups;

use std::time::Duration;

use jobs::users::{Role, UserId, token::Tokens};
use queue::JobId;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::in_time;
use crate::harness::{
    eventually,
    http::{HttpResponse, send},
    process::{client_at, start_worker},
    system::System,
};

const SOON: Duration = Duration::from_secs(30);
const SECRET: &str = "a-secret-of-these-tests-32-bytes-long";
const PRIVATE: &str = "the-key-of-private-routes";
const ADMIN: &str = "the-key-of-admin-routes";
const VIEWER: &str = "the-key-of-viewers";
const QUEUE: &str = "process_transaction";

/// An API with all keys, whose transactions are due in an hour unless a worker has another delay.
async fn system() -> System {
    System::start(&[
        ("API_KEY", PRIVATE),
        ("ADMIN_API_KEY", ADMIN),
        ("VIEWER_API_KEY", VIEWER),
        ("JWT_SECRET", SECRET),
        ("PROCESSING_DELAY_SECONDS", "3600"),
    ])
    .await
}

impl System {
    fn as_admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).header("x-api-key", ADMIN)
    }

    /// The response to a request with the viewer's key.
    async fn view(&self, path: &str) -> HttpResponse {
        in_time::view(self.get(path).header("x-api-key", VIEWER)).await
    }

    /// The JSON of a page that viewers may read.
    async fn viewed(&self, path: &str) -> Value {
        let response = self.view(path).await;
        assert_eq!(response.status, 200, "{path}: {response:?}");
        response.json()
    }

    /// The response to an action of ada.
    async fn act(&self, path: &str, body: Value) -> HttpResponse {
        send(self.as_admin(Method::POST, path).header("x-actor", "ada").json(&body)).await
    }

    /// Sends a webhook. Returns the id of its job.
    async fn send_transaction(&self, id: &str) -> String {
        self.send_webhook(id).await;
        let found = self.viewed(&format!("/v1/transactions/{id}/timeline")).await;
        found["job"].as_str().expect("an id").to_owned()
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.database.pool().await).await.expect("executed");
    }

    /// Makes all waiting jobs dead letters, as a worker does after the last attempt.
    async fn let_all_die(&self) {
        self.execute(
            "UPDATE apalis.jobs SET status = 'Killed', done_at = now(), error_group = 'refused',
                    errors = '[{\"at\": \"2026-11-28T12:00:00Z\", \"run\": 1, \"worker\": \"w\", \"error\": \"refused: 7\"}]'
             WHERE status = 'Pending'",
        )
        .await;
        self.execute(
            "UPDATE transactions SET status = 'FAILED', error = 'refused', processed_at = now() WHERE status = 'PROCESSING'",
        )
        .await;
    }

    async fn status(&self, transaction: &str) -> String {
        let found = send(self.get(&format!("/v1/transactions/{transaction}"))).await.json();
        found["status"].as_str().expect("a status").to_owned()
    }
}

/// The paths and methods of the operators' endpoints.
fn operations() -> Vec<(String, Method)> {
    let document: Value = serde_json::from_str(include_str!("../../../api/openapi.json")).expect("JSON");
    let paths = document["paths"].as_object().expect("paths").iter();
    let operations = paths.flat_map(|(path, operations)| {
        let methods = operations.as_object().expect("operations").iter();
        methods
            .filter(|(_, operation)| operation["tags"][0] == "Operators")
            .map(move |(method, _)| (path.clone(), method.to_uppercase().parse().expect("a method")))
    });
    operations.collect()
}

#[tokio::test]
async fn a_viewer_reads_every_route_and_acts_on_none() {
    let mut system = system().await;
    let tokens = Tokens::new(SECRET.as_bytes());
    let bearer = |role| format!("Bearer {}", tokens.issue(UserId(7), role).expect("a token"));
    let (user, admin) = (bearer(Role::User), bearer(Role::Admin));
    let operations = operations();
    assert!(operations.len() >= 24, "{operations:?}");
    for ((path, method), number) in operations.into_iter().zip(1..) {
        // An address may try 30 wrong keys a minute.
        system.client = client_at(number);
        let path = path.replace(['{', '}'], "") + "?q=unknown";
        let call = async |header: &'static str, value: &str| {
            let request = system.request(method.clone(), &path).header(header, value);
            if method == Method::POST {
                send(request.json(&json!({"reason": " "}))).await
            } else {
                in_time::view(request).await
            }
        };
        for (header, value, status) in [
            ("x-nothing", "", 403),
            ("x-api-key", PRIVATE, 403),
            ("x-api-key", "unknown-key", 403),
            ("authorization", &*user, 403),
            ("authorization", "Bearer x", 401),
        ] {
            let response = call(header, value).await;
            response.assert_problem(status, &format!("{method} {path} {header}: {value}"));
            assert_eq!(response.header("cache-control"), "private, no-store", "{path}");
        }
        let viewed = call("x-api-key", VIEWER).await;
        assert_eq!(viewed.header("cache-control"), "private, no-store", "{path}");
        if method == Method::POST {
            let problem = viewed.assert_problem(403, &path);
            assert!(problem["detail"].as_str().is_some_and(|text| text.contains("may only read")), "{problem}");
            for (header, value) in [("x-api-key", ADMIN), ("authorization", &admin)] {
                assert_eq!(call(header, value).await.status, 422, "{path}: only the reason is refused");
            }
        } else {
            assert!([200, 404].contains(&viewed.status), "{path}: {viewed:?}");
            assert_eq!(call("authorization", &admin).await.status, viewed.status, "{path}");
        }
    }
    assert_eq!(system.view("/simple_price?assets=bitcoin&currency=usd").await.status, 403, "not an operators' route");
    assert_eq!(system.view("/logs/export").await.status, 403);
}

#[tokio::test]
async fn a_queue_is_paused_and_resumed_with_a_reason_and_an_actor() {
    let system = system().await;
    system.send_webhook("t").await;
    let path = |action: &str| format!("/admin/queue/queues/{QUEUE}{action}");
    let reason = json!({"reason": "the processor is down", "until": "30m"});
    let paused = system.act(&path("/pause"), reason.clone()).await;
    assert_eq!(paused.status, 200, "{paused:?}");
    let expected = json!({"action": "pause", "target": QUEUE, "actor": "ada", "reason": "the processor is down",
                          "result": "paused"});
    assert_eq!(paused.json(), expected);
    let queue = system.viewed(&path("")).await;
    assert_eq!((&queue["paused_by"], &queue["reason"]), (&"ada".into(), &"the processor is down".into()));
    assert!(
        queue["resume_at"].is_string() && queue["minutes"].as_array().is_some_and(|all| all.len() == 60),
        "{queue}"
    );
    let overview = system.viewed("/admin/queue/overview").await;
    let problem = overview["problems"][0]["text"].as_str().expect("a problem");
    assert!(problem.contains("paused") && problem.contains("by ada"), "{problem}");

    // Without a name the actor is the key or the user of the token.
    let resume = system.as_admin(Method::POST, &path("/resume")).json(&json!({"reason": "it is healthy"}));
    assert_eq!(send(resume).await.json()["actor"], "admin key");
    system.act(&path("/resume"), json!({"reason": "again"})).await.assert_problem(409, "it was not paused");
    for action in ["pause", "resume"] {
        let unknown = system.act(&format!("/admin/queue/queues/unknown/{action}"), json!({"reason": "r"})).await;
        assert_eq!(unknown.assert_problem(404, action)["detail"], "Unknown queue");
    }
    assert_eq!(system.view("/admin/queue/queues/a%00b").await.status, 404);
    let token = Tokens::new(SECRET.as_bytes()).issue(UserId(7), Role::Admin).expect("a token");
    let pause = system.request(Method::POST, &path("/pause")).bearer_auth(token).json(&reason);
    assert_eq!(send(pause).await.json()["actor"], "user 7");

    let history = system.viewed(&path("")).await["actions"].clone();
    let acts: Vec<_> = history.as_array().expect("actions").iter().map(|one| (&one["action"], &one["actor"])).collect();
    let expected = [("pause", "user 7"), ("resume", "admin key"), ("pause", "ada")].map(|(a, b)| (a.into(), b.into()));
    assert_eq!(acts, expected.each_ref().map(|(action, actor): &(Value, Value)| (action, actor)));
    assert_eq!(history[2]["via"], "http");

    let first = system.view(&format!("/admin/queue/actions?target={QUEUE}&limit=2")).await;
    let next = first.header("link").trim_start_matches('<').split('>').next().expect("a path").to_owned();
    assert_eq!(
        (first.json().as_array().map(Vec::len), system.viewed(&next).await.as_array().map(Vec::len)),
        (Some(2), Some(1))
    );
}

#[tokio::test]
async fn the_link_of_a_list_leads_to_every_job_once() {
    let system = system().await;
    let mut sent = Vec::new();
    for number in 0..5 {
        sent.push(system.send_transaction(&format!("t-{number}")).await);
    }
    system.let_all_die().await;
    for filter in [
        "limit=2",
        "limit=2&state=dead&queue=process_transaction&error=refused%3A%207",
        "limit=2&group=refused&attempts=0&older_than=0s",
    ] {
        let (mut path, mut found) = (format!("/admin/queue/jobs?{filter}"), Vec::new());
        loop {
            let page = system.view(&path).await;
            let jobs = page.json().as_array().cloned().expect("a bare array");
            found.extend(jobs.iter().map(|job| job["id"].as_str().expect("an id").to_owned()));
            match page.header("link").split_once('>') {
                Some((next, _)) => path = next.trim_start_matches('<').to_owned(),
                None => break,
            }
        }
        found.reverse();
        assert_eq!(found, sent, "{filter}");
    }
    let none = system.view("/admin/queue/jobs?error=other").await;
    assert_eq!((none.json(), none.header("searched-to"), none.header("searched-back-to")), (json!([]), "", ""));
}

#[tokio::test]
async fn a_payload_is_opened_by_operators_only_and_recorded() {
    let system = system().await;
    let job = system.send_transaction("t").await;
    let path = format!("/admin/queue/jobs/{job}");
    assert!(system.viewed(&path).await.get("payload").is_none());
    system.view(&format!("{path}?payload=true")).await.assert_problem(403, "a viewer");
    assert_eq!(system.viewed(&format!("/admin/queue/actions?target={job}")).await, json!([]));

    let opened = system.as_admin(Method::GET, &format!("{path}?payload=true&reason=a%20complaint"));
    let opened = send(opened.header("x-actor", "ada")).await.json();
    assert!(opened["payload"]["id"].is_string(), "{opened}");
    let recorded = system.viewed(&format!("/admin/queue/actions?target={job}")).await;
    let one = &recorded[0];
    assert_eq!((&one["action"], &one["actor"], &one["reason"]), (&"open".into(), &"ada".into(), &"a complaint".into()));
    let why = system.viewed(&format!("{path}/why")).await;
    assert!(why["verdict"].as_str().is_some_and(|text| text.contains("due in")), "{why}");
    assert_eq!(system.view("/admin/queue/jobs/unknown").await.status, 404);
}

#[tokio::test]
async fn a_job_is_cancelled_and_replayed_and_its_timeline_says_so() {
    let system = system().await;
    let job = system.send_transaction("t").await;
    let path = |action: &str| format!("/admin/queue/jobs/{job}/{action}");
    let reason = json!({"reason": "it is a test"});
    system.act(&path("replay"), reason.clone()).await.assert_problem(409, "it waits");
    assert_eq!(system.act(&path("cancel"), reason.clone()).await.json()["result"], "cancelled");
    assert_eq!(system.status("t").await, "FAILED");
    system.act(&path("cancel"), reason.clone()).await.assert_problem(409, "it has ended");
    assert_eq!(system.act(&path("replay"), reason.clone()).await.json()["result"], "replayed");
    assert_eq!(system.status("t").await, "PROCESSING");
    system.execute("UPDATE apalis.jobs SET replays = 2").await;
    assert_eq!(system.act(&path("cancel"), reason.clone()).await.json()["result"], "cancelled");
    system.act(&path("replay"), reason.clone()).await.assert_problem(409, "it was replayed twice");
    let again = json!({"reason": "it is a test", "include_replayed": true});
    assert_eq!(system.act(&path("replay"), again).await.json()["result"], "replayed");
    for action in ["cancel", "replay"] {
        let unknown = format!("/admin/queue/jobs/{}/{action}", JobId::generate());
        system.act(&unknown, reason.clone()).await.assert_problem(404, action);
    }
    let timeline = system.viewed("/v1/transactions/t/timeline").await;
    let events: Vec<_> = timeline["events"].as_array().expect("events").iter().map(|one| &one["event"]).collect();
    assert_eq!((&events[0], events.iter().filter(|event| **event == "operator").count()), (&&"accepted".into(), 4));
    assert_eq!(system.view("/v1/transactions/unknown/timeline").await.status, 404);
    for (id, kind) in [("t", "transaction"), (&*job, "job")] {
        let found = system.viewed(&format!("/admin/queue/find?q={id}")).await;
        assert!(found.as_array().is_some_and(|all| all.iter().any(|one| one["kind"] == kind)), "{id}: {found}");
    }
}

#[tokio::test]
async fn dead_letters_are_counted_replayed_and_discarded() {
    let system = system().await;
    for number in 0..3 {
        system.send_webhook(&format!("t-{number}")).await;
    }
    system.let_all_die().await;
    let groups = system.viewed(&format!("/admin/queue/dead?queue={QUEUE}")).await;
    assert_eq!((&groups[0]["group"], &groups[0]["count"]), (&"refused".into(), &3.into()));
    let replay = |changes: Value| {
        let mut body =
            json!({"queue": QUEUE, "group": "refused", "reason": "it is healthy", "rate": 1000, "canary": 0});
        body.as_object_mut().unwrap().extend(changes.as_object().cloned().unwrap_or_default());
        body
    };
    let path = "/admin/queue/dead/replay";
    let counted = system.act(path, replay(json!({"dry_run": true}))).await;
    let body = counted.json();
    assert_eq!((counted.status, &body["count"], body["samples"].as_array().map(Vec::len)), (200, &3.into(), Some(3)));
    assert_eq!(system.viewed("/admin/queue/replays").await, json!([]), "a dry run changes nothing");
    system.act(path, replay(json!({"error": "another"}))).await.assert_problem(404, "none is selected");

    system.execute("UPDATE apalis.jobs SET replays = 2 WHERE status = 'Killed'").await;
    let counted = system.act(path, replay(json!({"dry_run": true}))).await.json();
    assert_eq!(counted["replayed_before"], 3, "{counted}");
    let problem = system.act(path, replay(json!({"limit": 2}))).await.assert_problem(409, "they were replayed twice");
    assert!(problem["detail"].as_str().is_some_and(|text| text.starts_with("2 of the selected jobs")), "{problem}");
    let counted_at = body["counted_at"].clone();
    let early = replay(json!({"died_before": "2020-01-01T00:00:00Z", "include_replayed": true}));
    system.act(path, early).await.assert_problem(404, "none had died");
    let confirmed = replay(json!({"limit": 2, "include_replayed": true, "died_before": counted_at}));
    let started = system.act(path, confirmed).await;
    assert_eq!((started.status, &started.json()["state"]), (202, &"running".into()), "{started:?}");
    let progress = started.header("location").to_owned();
    let change = async |action: &str| system.act(&format!("{progress}/{action}"), json!({"reason": "r"})).await;
    assert_eq!(change("pause").await.json()["state"], "paused");
    change("pause").await.assert_problem(409, "it is paused");
    assert_eq!(change("resume").await.json()["state"], "running");
    let _worker = start_worker(&system.database.url, &[("PROCESSING_DELAY_SECONDS", "0")]).await;
    eventually("the replay is done", SOON, async || system.viewed(&progress).await["state"] == "done").await;
    assert_eq!(system.viewed(&progress).await["replayed"], 2);
    eventually("both are processed", SOON, async || system.status("t-1").await == "PROCESSED").await;
    change("stop").await.assert_problem(409, "it has ended");
    for id in ["unknown", "01980000-0000-7000-8000-000000000000"] {
        let unknown = system.act(&format!("/admin/queue/replays/{id}/stop"), json!({"reason": "r"})).await;
        unknown.assert_problem(404, id);
    }

    let body = |dry_run: bool| json!({"queue": QUEUE, "error": "refused", "reason": "test data", "dry_run": dry_run});
    for dry_run in [true, false] {
        let discarded = system.act("/admin/queue/dead/discard", body(dry_run)).await.json();
        assert_eq!((&discarded["dry_run"], &discarded["count"]), (&dry_run.into(), &1.into()), "{discarded}");
    }
    system.act("/admin/queue/dead/discard", body(false)).await.assert_problem(404, "all are discarded");
    assert_eq!(system.viewed("/admin/queue/dead").await, json!([]));
}

#[tokio::test]
async fn a_drained_worker_shows_its_jobs_and_stops() {
    let system = system().await;
    let mut worker = start_worker(&system.database.url, &[("QUEUE_HEARTBEAT_SECONDS", "0.1")]).await;
    let workers = async || system.viewed("/admin/queue/workers").await;
    eventually("the worker has reported", SOON, async || workers().await[0]["report"].is_object()).await;
    let id = workers().await[0]["id"].as_str().expect("an id").to_owned();
    let path = format!("/admin/queue/workers/{id}");
    assert_eq!(system.viewed(&path).await["held"], json!([]));
    system.act("/admin/queue/workers/unknown/drain", json!({"reason": "r"})).await.assert_problem(404, "unknown");
    assert_eq!(
        system.act(&format!("{path}/drain"), json!({"reason": "a new host"})).await.json()["result"],
        "requested"
    );
    assert!(worker.wait_for_exit(SOON).await.success());
}

#[tokio::test]
async fn invalid_input_is_refused_with_every_wrong_field() {
    let system = system().await;
    let pause = format!("/admin/queue/queues/{QUEUE}/pause");
    let body =
        json!({"queue": "", "rate": 0, "limit": 100_001, "stop_if_dead": 20, "reason": " ", "dry_run": "perhaps"});
    for (path, body, expected) in [
        (&*pause, json!({"reason": "r", "until": "2020-01-01T00:00:00Z"}), &["until"][..]),
        (&pause, json!({"until": "soon"}), &["reason", "until"]),
        (
            "/admin/queue/cancel",
            json!({"queue": "", "older_than": "soon", "attempts": -1, "reason": "r"}),
            &["queue", "older_than", "attempts"],
        ),
        ("/admin/queue/dead/replay", body, &["queue", "rate", "limit", "stop_if_dead", "reason", "dry_run"]),
    ] {
        let response = system.act(path, body).await;
        assert_eq!(response.status, 422, "{response:?}");
        let fields: Vec<_> = response.validation_errors().into_iter().map(|(_, loc, _)| loc).collect();
        assert_eq!(fields, expected.iter().map(|name| format!("[\"body\",\"{name}\"]")).collect::<Vec<_>>(), "{path}");
    }
    let long = "a".repeat(101);
    let request = system.as_admin(Method::POST, &pause).header("x-actor", long).json(&json!({"reason": "r"}));
    assert_eq!(send(request).await.validation_errors()[0].1, r#"["header","X-Actor"]"#);
    let job = "/admin/queue/jobs/x?payload=true&reason=";
    for (method, path, second) in [
        (Method::POST, &*pause, r#"["body","reason"]"#),
        (Method::POST, "/v1/callbacks/test?destination=", r#"["query","destination"]"#),
        (Method::GET, job, r#"["query","reason"]"#),
    ] {
        let request = system.as_admin(method, path).header("x-actor", "").json(&json!({"reason": ""}));
        let mut fields: Vec<_> = send(request).await.validation_errors().into_iter().map(|failure| failure.1).collect();
        fields.sort_unstable();
        let mut expected = [r#"["header","X-Actor"]"#, second];
        expected.sort_unstable();
        assert_eq!(fields, expected, "{path}");
    }
    let wrong = system.view("/admin/queue/jobs?state=lost&limit=0&queue=&older_than=1w&attempts=many").await;
    assert_eq!((wrong.status, wrong.validation_errors().len()), (422, 5), "{wrong:?}");
}
