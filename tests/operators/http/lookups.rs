//! Schedules, look-ups by the ids of a request, and the cancellation of the jobs of a filter.

use reqwest::Method;
use serde_json::{Value, json};

use super::{QUEUE, SOON, VIEWER, in_time, system};
use crate::harness::{
    eventually,
    http::send,
    process::start_worker,
    system::{System, WEBHOOKS, webhook},
};

#[tokio::test]
async fn a_schedule_is_fired_and_its_next_fire_skipped() {
    let system = system().await;
    let path = |action: &str| format!("/admin/queue/schedules/daily_prices/{action}");
    let reason = json!({"reason": "the prices are wrong"});
    assert_eq!(system.act(&path("fire"), reason.clone()).await.json()["result"], "12");
    let skipped = system.act(&path("skip-next"), reason.clone()).await.json();
    assert_eq!((&skipped["actor"], &skipped["action"]), (&"ada".into(), &"skip".into()));
    let time = &skipped["result"];
    system.act(&path("skip-next"), reason.clone()).await.assert_problem(409, "skipped already");
    let schedule = &system.viewed("/admin/queue/schedules").await[0];
    assert_eq!((&schedule["upcoming"][0]["time"], &schedule["upcoming"][0]["skipped_by"]), (time, &"ada".into()));
    assert_eq!(schedule["next"], schedule["upcoming"][1]["time"]);
    let fire = &schedule["latest"][0];
    assert_eq!(
        (&fire["kind"], &fire["fired_by"], &fire["outcome"]),
        (&"by_hand".into(), &"ada".into(), &"waiting".into())
    );
    let fires = system.viewed(&path("fires")).await;
    assert_eq!((&fires[0]["fire_time"], &fires[0]["kind"], &fires[1]), (time, &"skipped".into(), fire));
    let actions = system.viewed("/admin/queue/actions?target=daily_prices").await;
    assert_eq!((&actions[0]["action"], &actions[1]["action"]), (&"skip".into(), &"fire".into()), "{actions}");
    for action in ["fire", "skip-next"] {
        let unknown = system.act(&format!("/admin/queue/schedules/hourly/{action}"), reason.clone()).await;
        unknown.assert_problem(404, action);
    }
}

#[tokio::test]
async fn a_transaction_is_found_by_its_correlation_id_and_its_trace() {
    let system = system().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = system
        .post_webhook(webhook("t-1").to_string())
        .header("x-correlation-id", "order/7")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    assert_eq!(send(request).await.status, 202);
    let response = send(system.post_webhook(webhook("t-2").to_string())).await;
    let generated = response.header("x-correlation-id").to_owned();
    for (id, transaction) in [("order%2F7", "t-1"), (trace, "t-1"), (&*generated, "t-2")] {
        let found = system.viewed(&format!("/admin/queue/find?q={id}")).await;
        let ids: Vec<_> = found.as_array().expect("a list").iter().map(|one| (&one["kind"], &one["id"])).collect();
        assert_eq!(ids, [(&"transaction".into(), &transaction.into())], "{id}: {found}");
    }
    let timeline = system.viewed("/v1/transactions/t-1/timeline").await;
    let details = &timeline["events"][0]["details"];
    assert_eq!(details, &json!({"correlation_id": "order/7", "trace_id": trace, "sender": null}));
}

/// The names of the events of a timeline, in its order.
async fn events(system: &System, id: &str) -> Vec<String> {
    let timeline = system.viewed(&format!("/v1/transactions/{id}/timeline")).await;
    let name = |event: &Value| event["event"].as_str().expect("a name").to_owned();
    timeline["events"].as_array().expect("events").iter().map(name).collect()
}

#[tokio::test]
async fn a_timeline_has_every_kind_of_event_in_order() {
    let undelayed = [("VIEWER_API_KEY", VIEWER), ("PROCESSING_DELAY_SECONDS", "0")];
    let system = System::start(&undelayed).await;
    system.send_webhook("t").await;
    assert_eq!(events(&system, "t").await, ["accepted", "due"]);
    // Two replays, and three in a batch.
    for _ in 0..2 {
        system.send_webhook("t").await;
    }
    let batch = system.request(Method::POST, &format!("{WEBHOOKS}/batch"));
    let rows = json!([webhook("t"), webhook("t"), webhook("t")]);
    assert_eq!(send(batch.json(&rows)).await.status, 200);
    eventually("the replays are counted", SOON, async || {
        let timeline = system.viewed("/v1/transactions/t/timeline").await;
        timeline["events"][2]["details"]["times"] == 5
    })
    .await;
    let mut other = webhook("t");
    other["amount"] = 7.into();
    assert_eq!(send(system.post_webhook(other.to_string())).await.status, 202);
    assert_eq!(events(&system, "t").await, ["accepted", "due", "replay", "conflict"]);

    let _worker = start_worker(&system.database.url, &undelayed).await;
    eventually("its run has ended", SOON, async || events(&system, "t").await.contains(&"done".into())).await;
    assert_eq!(events(&system, "t").await, ["accepted", "due", "replay", "conflict", "processed", "done"]);
}

/// The row of a transaction has its last settlement only.
#[tokio::test]
async fn a_timeline_keeps_the_failures_before_a_replay_and_has_each_order_once() {
    let system = system().await;
    let job = system.send_transaction("t").await;
    let act = async |action: &str| {
        let path = format!("/admin/queue/jobs/{job}/{action}");
        let acted = system.act(&path, json!({"reason": "it is a test"})).await;
        assert_eq!(acted.status, 200, "{action}: {acted:?}");
    };
    act("cancel").await;
    act("replay").await;
    system.let_all_die().await;
    act("replay").await;
    let timeline = system.viewed("/v1/transactions/t/timeline").await;
    let all = timeline["events"].as_array().expect("events");
    let texts = |name: &str| -> Vec<&str> {
        all.iter().filter(|event| event["event"] == name).filter_map(|event| event["text"].as_str()).collect()
    };
    let failures = ["it failed for good: cancelled by operator", "it failed for good: refused"];
    assert_eq!((texts("failed"), &timeline["status"]), (failures.to_vec(), &"PROCESSING".into()), "{timeline}");
    let orders = [texts("operator").len(), texts("cancelled").len(), texts("replayed").len()];
    assert_eq!(orders, [3, 0, 0], "{timeline}");
}

#[tokio::test]
async fn a_timeline_has_the_number_of_all_conflicts() {
    let system = system().await;
    system.send_webhook("t").await;
    assert_eq!(system.viewed("/v1/transactions/t/timeline").await["conflicts"], 0);
    let mut other = webhook("t");
    for amount in 1..=23_u32 {
        other["amount"] = amount.into();
        assert_eq!(send(system.post_webhook(other.to_string())).await.status, 202);
    }
    let timeline = system.viewed("/v1/transactions/t/timeline").await;
    assert_eq!(timeline["conflicts"], 23, "{timeline}");
    let listed = events(&system, "t").await.into_iter().filter(|event| event == "conflict").count();
    assert_eq!(listed, 20, "the first 20 payloads are kept: {timeline}");
    let (status, printed) = in_time::run(&system.database.url, &["transaction", "t"]).await;
    let total = "conflicts 23; the first 20 different payloads are listed\n";
    assert!(status == Some(0) && printed.contains(total), "{printed}");
}

#[tokio::test]
async fn waiting_jobs_are_counted_and_cancelled_by_a_filter() {
    let system = system().await;
    for number in 0..3 {
        system.send_webhook(&format!("t-{number}")).await;
    }
    let path = "/admin/queue/cancel";
    let mut body = json!({"queue": QUEUE, "attempts": 0, "reason": "test data", "dry_run": true});
    let counted = system.act(path, body.clone()).await.json();
    assert_eq!(counted["ids"].as_array().map(Vec::len), Some(3), "{counted}");
    assert_eq!((&counted["count"], counted["samples"].as_array().map(Vec::len)), (&3.into(), Some(3)), "{counted}");
    system.send_webhook("later").await;
    body["dry_run"] = false.into();
    body["ids"] = counted["ids"].clone();
    let cancelled = system.act(path, body.clone()).await.json();
    assert_eq!((&cancelled["dry_run"], &cancelled["count"]), (&false.into(), &3.into()), "{cancelled}");
    assert_eq!((system.status("t-2").await, system.status("later").await), ("FAILED".into(), "PROCESSING".into()));
    system.act(path, body).await.assert_problem(404, "all are cancelled");
    let actions = system.viewed(&format!("/admin/queue/actions?target={QUEUE}")).await;
    assert_eq!((&actions[0]["action"], &actions[0]["count"]), (&"cancel".into(), &3.into()), "{actions}");
}
