//! Look-up of one transaction: entity tags, the `Retry-After` estimate, and long polls.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{System, assert_ok, time_of};
use crate::harness::{eventually, http::send};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn unchanged_transactions_are_304_and_pending_ones_have_an_estimate() {
    let system = System::start(&[("PROCESSING_DELAY_SECONDS", "600")]).await;
    system.send_webhook("t").await;
    let first = send(system.get("/v1/transactions/t")).await;
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "{tag}");
    let estimate: u64 = first.header("retry-after").parse().unwrap();
    assert!((590..=600).contains(&estimate), "{estimate}");
    assert_eq!(
        send(system.get("/v1/transactions/t")).await.header("etag"),
        tag,
        "the tag is stable while nothing changes"
    );

    let weak = format!("W/{tag}");
    let several = format!("\"x\", {tag}");
    for (given, status) in
        [(&*tag, 304), (&*weak, 304), (&*several, 304), ("*", 304), ("\"x\"", 200), ("x", 200), ("", 200)]
    {
        let response = send(system.get("/v1/transactions/t").header("If-None-Match", given)).await;
        assert_ok(&response, status, given);
        assert_eq!(response.header("etag"), tag, "{given}");
        assert_eq!(response.text.is_empty(), status == 304, "{given}: {}", response.text);
        assert!(response.headers.contains_key("x-correlation-id"), "{given}");
    }
    let head = send(system.client.head(format!("{}/v1/transactions/t", system.api.url))).await;
    assert_ok(&head, 200, "HEAD");
    assert_eq!((head.header("etag"), &*head.text), (&*tag, ""));
    assert_eq!(head.header("content-length"), first.text.len().to_string());
}

#[tokio::test]
async fn a_long_poll_ends_with_a_change_or_its_timeout() {
    let system = System::start(&[("PROCESSING_DELAY_SECONDS", "3600")]).await;
    let sent = system.send_webhook("t").await;
    let tag = send(system.get("/v1/transactions/t")).await.header("etag").to_owned();
    let begun = Instant::now();
    let short = send(system.get("/v1/transactions/t?wait=0.3")).await;
    assert!((0.3..20.0).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
    assert_eq!((short.status, &short.json()["status"]), (200, &json!("PROCESSING")));
    assert!((3540..=3600).contains(&short.header("retry-after").parse::<u64>().unwrap()), "{short:?}");

    // A hundred long polls at once. An outdated tag does not end them early.
    let begun = Instant::now();
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..100 {
        waiters.spawn(send(system.get("/v1/transactions/t?wait=60").header("If-None-Match", &tag)));
    }
    sqlx::query("UPDATE apalis.jobs SET run_at = now()").execute(&system.database.pool().await).await.unwrap();
    let _worker = system.start_worker(&[]).await;
    for response in waiters.join_all().await {
        assert_ok(&response, 200, "a long poll");
        let settled = response.json();
        assert_eq!((&settled["status"], &settled["created_at"]), (&json!("PROCESSED"), &sent["created_at"]));
        assert!(time_of(&settled["processed_at"]) > time_of(&settled["created_at"]), "{settled}");
        assert!(!response.headers.contains_key("retry-after"), "{response:?}");
        assert_ne!(response.header("etag"), tag);
    }
    assert!(begun.elapsed() < Duration::from_secs(50), "the change was not noticed: {:?}", begun.elapsed());
    let begun = Instant::now();
    assert_ok(&send(system.get("/v1/transactions/t?wait=60")).await, 200, "already settled");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());

    for (wait, kind) in [
        ("61", "less_than_equal"),
        ("60.001", "less_than_equal"),
        ("1e9", "less_than_equal"),
        ("-1", "greater_than_equal"),
        ("soon", "float_parsing"),
        ("1s", "float_parsing"),
        ("NaN", "finite_number"),
        ("inf", "finite_number"),
    ] {
        let response = send(system.get(&format!("/v1/transactions/t?wait={wait}"))).await;
        response.assert_problem(422, wait);
        assert_eq!(
            (&*response.validation_errors()[0].0, &*response.validation_errors()[0].1),
            (kind, "[\"query\",\"wait\"]"),
            "{wait}"
        );
        assert_eq!(response.json()["detail"][0]["input"], wait);
    }
}

#[tokio::test]
async fn a_stopping_api_sends_long_pollers_the_current_state() {
    let mut system = System::start(&[("PROCESSING_DELAY_SECONDS", "600")]).await;
    system.send_webhook("t").await;
    let waiting = tokio::spawn(send(system.get("/v1/transactions/t?wait=60")));
    // While a request waits, the process looks for settlements every second.
    let looks = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND query LIKE 'SELECT id FROM transactions%status <>%'";
    eventually("the request waits", SOON, async || system.count(looks).await > 0).await;
    assert!(!waiting.is_finished());
    system.api.process.signal(Signal::SIGTERM);
    let begun = Instant::now();
    let response = waiting.await.unwrap();
    assert_eq!((response.status, &response.json()["status"]), (200, &json!("PROCESSING")));
    assert!(system.api.process.wait_for_exit(SOON).await.success(), "{}", system.api.process.log());
    // The requests that go on are aborted after 25 s.
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn jobs_carry_the_trace_and_correlation_id_of_their_request() {
    let system = System::start(&[("PROCESSING_DELAY_SECONDS", "0")]).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = |id: &str, trace: &str, correlation: &str| {
        let request = system.post_webhook(super::webhook(id).to_string()).header("traceparent", trace);
        send(request.header("X-Correlation-Id", correlation))
    };
    assert_ok(&request("traced", trace, "order/17@shop").await, 202, "traced");
    assert_ok(&request("untraced", "00-00-00-00", "not valid").await, 202, "untraced");
    let rows: Vec<(Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT job.metadata -> 'traceparent', job.metadata -> 'correlation_id' FROM apalis.jobs AS job
         JOIN transactions AS transaction ON transaction.created_at = job.run_at ORDER BY transaction_id",
    )
    .fetch_all(&system.database.pool().await)
    .await
    .unwrap();
    assert_eq!(rows[0], (Some(trace.into()), Some("order/17@shop".into())));
    assert_eq!(rows[1].0, None, "an invalid traceparent is dropped");
    assert!(rows[1].1.as_deref().is_some_and(|id| uuid::Uuid::parse_str(id).is_ok()), "{rows:?}");

    let worker = system.start_worker(&[("RUST_LOG", "debug")]).await;
    system.wait_until_settled("traced").await;
    eventually("the worker logs the job", SOON, async || {
        let log = worker.log();
        let mut lines = log.lines().filter(|line| line.contains(r#""correlation_id":"order/17@shop""#));
        lines.any(|line| line.contains(r#""event":"job done""#) && line.contains(trace))
    })
    .await;
    let mut line = None;
    eventually("the API logs the request", SOON, async || {
        let log = system.api.process.log();
        let mut lines = log.lines().filter(|line| line.contains("COMPLETED_REQUEST"));
        line = lines.find(|line| line.contains("order/17@shop")).map(str::to_owned);
        line.is_some()
    })
    .await;
    let line: serde_json::Value = serde_json::from_str(&line.expect("the API's line")).expect("a JSON line");
    assert_eq!((&line["method"], &line["status_code"]), (&json!("POST"), &json!(202)), "{line}");
    assert_eq!(line["transaction_id"], "traced", "{line}");
}
