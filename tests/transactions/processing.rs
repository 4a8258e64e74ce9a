//! Processing: on time by the simulation, or as the response of the configured processor decides.

use std::time::Duration;

use serde_json::{Value, json};

use super::{System, assert_ok, fake_processor::FakeProcessor, seconds_late, webhook, webhook_with};
use crate::harness::{eventually, http::send, port::Port};

const SOON: Duration = Duration::from_secs(20);

/// Sends 20 transactions with a delay of 1.5 s, and waits until they are processed. Returns how many seconds late the
/// last one was.
async fn process_twenty(system: &System, name: &str) -> f64 {
    for number in 0..20 {
        system.send_webhook(&format!("{name}-{number}")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let claims = system.count("SELECT count(*) FROM apalis.jobs WHERE status <> 'Pending' AND run_at > now()").await;
    assert_eq!(claims, 0, "a waiting transaction occupies no worker");
    let mut latest = 0.0_f64;
    for number in 0..20 {
        let settled = system.wait_until_settled(&format!("{name}-{number}")).await;
        latest = latest.max(assert_processed(&settled));
    }
    latest
}

/// Asserts that a transaction with a delay of 1.5 s is processed, and not too early. Returns how many seconds late it
/// was.
fn assert_processed(settled: &Value) -> f64 {
    assert_eq!(settled["status"], "PROCESSED", "{settled}");
    assert!(settled.get("error").is_none(), "{settled}");
    let seconds_late = seconds_late(settled, 1.5);
    assert!(seconds_late >= 0.0, "settled too early, {seconds_late} s late: {settled}");
    seconds_late
}

#[tokio::test]
async fn transactions_are_processed_when_due_and_not_before() {
    let system = System::start(&[("PROCESSING_DELAY_SECONDS", "1.5")]).await;
    // Sent before a worker runs: the wait is stored in the database.
    system.send_webhook("early").await;
    let worker = system.start_worker(&[]).await;
    let mut latest = process_twenty(&system, "first").await;
    let early = system.wait_until_settled("early").await;
    latest = latest.max(assert_processed(&early));
    // A machine that stalls for a moment settles all of them late, and further ones on time.
    for round in ["second", "third", "fourth"] {
        if latest >= 0.5 {
            latest = process_twenty(&system, round).await;
        }
    }
    assert!(latest < 0.5, "{latest} s late\n{}", worker.log());
    // A job is done after its transaction is settled.
    let unfinished = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'process_transaction' AND status <> 'Done'";
    eventually("all jobs are done", SOON, async || system.count(unfinished).await == 0).await;
    // A replay and a conflict leave it unchanged.
    let before = send(system.get("/v1/transactions/first-0")).await;
    let replay = send(system.post_webhook(webhook("first-0").to_string())).await;
    assert_eq!((replay.status, replay.header("idempotency-replayed")), (202, "true"));
    assert_eq!(replay.text, before.text, "a replay returns the current state");
    let conflict = send(system.post_webhook(webhook_with("first-0", "amount", "1"))).await;
    assert_eq!((conflict.header("idempotency-conflict"), &*conflict.text), ("amount", &*before.text));
}

/// The settlement of a failed transaction is committed before the result of its run. A worker that dies between the two
/// leaves a job that runs again.
#[tokio::test]
async fn the_job_of_a_transaction_that_has_failed_becomes_a_dead_letter() {
    for processor in [&[][..], &[("PROCESSOR_URL", "http://127.0.0.1:9/not-called")]] {
        let system = System::start(&[("PROCESSING_DELAY_SECONDS", "0")]).await;
        system.send_webhook("t").await;
        let fail = "UPDATE transactions SET status = 'FAILED', error = 'the processor refused', processed_at = now()";
        sqlx::query(fail).execute(&system.database.pool().await).await.unwrap();
        let _worker = system.start_worker(processor).await;
        let dead = "SELECT count(*) FROM apalis.jobs WHERE status = 'Killed'
                    AND errors -> -1 ->> 'error' = 'the processor refused'";
        eventually("its job is a dead letter", Duration::from_secs(10), async || system.count(dead).await == 1).await;
        assert_eq!(system.wait_until_settled("t").await["error"], "the processor refused");
    }
}

/// For two attempts, and a time-out of 8 s a call.
fn script(id: &str, call: usize) -> (u16, Option<&'static str>, Duration) {
    let now = Duration::ZERO;
    let status = || id.rsplit('-').next().and_then(|status| status.parse().ok()).unwrap_or(200);
    match (id.split('-').next().unwrap_or_default(), call) {
        ("snooze", 1..=3) => (status(), Some("1"), now),
        ("limited", 1) => (429, Some("1"), now),
        ("flaky", 1) => (status(), None, now),
        ("snooze" | "flaky" | "limited", _) => (200, None, now),
        ("slow", _) => (200, None, Duration::from_secs(60)),
        ("later", _) => (202, Some("3600"), now),
        _ => (status(), None, now),
    }
}

/// The transaction id, how often the processor is called, and a part of the error of a failed transaction.
const CASES: &[(&str, usize, Option<&str>)] = &[
    ("done-200", 1, None),
    ("done-204", 1, None),
    ("done-202", 1, None),
    ("snooze-202", 4, None),
    ("snooze-503", 4, None),
    ("flaky-500", 2, None),
    ("limited-429", 2, None),
    ("refused-400", 1, Some("400")),
    ("refused-402", 1, Some("402")),
    ("refused-404", 1, Some("404")),
    ("refused-410", 1, Some("410")),
    ("refused-422", 1, Some("422")),
    ("refused-451", 1, Some("451")),
    ("broken-401", 2, Some("401")),
    ("broken-403", 2, Some("403")),
    ("broken-407", 2, Some("407")),
    ("broken-408", 2, Some("408")),
    ("broken-409", 2, Some("409")),
    ("broken-421", 2, Some("421")),
    ("broken-423", 2, Some("423")),
    ("broken-425", 2, Some("425")),
    ("flaky-409", 2, None),
    ("broken-500", 2, Some("500")),
    ("broken-503", 2, Some("503")),
    ("broken-429", 2, Some("429")),
    ("moved-302", 2, Some("302")),
    ("slow", 2, Some("in time")),
    ("ü b%/done", 1, None),
];

#[tokio::test]
async fn the_processor_response_decides_the_status() {
    let processor = FakeProcessor::start(script).await;
    // The delay applies to the simulation only.
    let variables = [
        ("PROCESSOR_URL", &*processor.url),
        ("PROCESSOR_ATTEMPTS", "2"),
        // Only the slow case exceeds it, also on a machine that stalls for seconds.
        ("PROCESSOR_TIMEOUT_SECONDS", "8"),
        ("PROCESSING_DELAY_SECONDS", "600"),
    ];
    let system = System::start(&variables).await;
    // Two workers, and each transaction is processed once.
    let _workers = [system.start_worker(&variables).await, system.start_worker(&variables).await];
    for (id, ..) in CASES {
        let request = system.post_webhook(webhook_with(id, "amount", "1500.50").replace("acc_user_1", "acc \\\"é\\\""));
        assert_ok(&send(request.header("X-Correlation-Id", format!("c-{}", id.len()))).await, 202, id);
    }
    for (id, expected_calls, error) in CASES.iter().copied() {
        let path = id.replace('%', "%25").replace('/', "%2F");
        let settled = system.wait_until_settled(&path).await;
        assert_eq!(settled["status"], if error.is_some() { "FAILED" } else { "PROCESSED" }, "{id}: {settled}");
        match error {
            None => assert!(settled.get("error").is_none(), "{id}: {settled}"),
            Some(text) => {
                let error = settled["error"].as_str().unwrap_or_default();
                assert!(error.contains(text) && !error.contains("hidden"), "{id}: {settled}");
                assert!(!error.contains("not wanted"), "the processor's response is for operators only: {settled}");
            }
        }
        assert!(seconds_late(&settled, 0.0) >= 0.0, "{id}: {settled}");
        let calls = processor.calls(id);
        assert_eq!(calls.len(), expected_calls, "{id}: {calls:?}");
        let key = id.replace('%', "%25").replace('ü', "%C3%BC").replace(' ', "%20");
        for call in &calls {
            assert_eq!(call.headers["idempotency-key"], key, "{id}");
            assert_eq!(call.headers["x-correlation-id"], format!("c-{}", id.len()), "{id}");
            assert_eq!(call.headers["content-type"], "application/json", "{id}");
            let expected = format!(
                r#"{{"transaction_id":{},"source_account":"acc \"é\"","destination_account":"acc_merchant_1","amount":1500.50,"currency":"INR"}}"#,
                json!(id)
            );
            assert_eq!(call.body, expected, "{id}");
        }
        for pair in calls.windows(2) {
            let pause = pair[1].at - pair[0].at;
            let has_retry_after = id.starts_with("snooze") || id.starts_with("limited");
            assert!(!has_retry_after || pause >= Duration::from_secs(1), "{id} was called again after {pause:?}");
        }
    }
    let failed = send(system.get("/v1/transactions?status=FAILED")).await.json();
    assert_eq!(failed.as_array().map(Vec::len), Some(CASES.iter().filter(|(.., error)| error.is_some()).count()));

    // The estimate follows the processor's `Retry-After`.
    system.send_webhook("later").await;
    eventually("the retry is scheduled", SOON, async || {
        let response = send(system.get("/v1/transactions/later")).await;
        response.header("retry-after").parse::<u64>().is_ok_and(|seconds| (3540..=3600).contains(&seconds))
    })
    .await;
}

#[tokio::test]
async fn an_unreachable_processor_fails_transactions_without_leaking_its_url() {
    let port = Port::free();
    let url = format!("http://user:hunter2@127.0.0.1:{port}/charge?key=hidden");
    let variables = [("PROCESSOR_URL", &*url), ("PROCESSOR_ATTEMPTS", "1")];
    let system = System::start(&variables).await;
    let mut worker = system.start_worker(&variables).await;
    let request = system.post_webhook(webhook("t").to_string()).header("X-Correlation-Id", "c-17");
    assert_ok(&send(request).await, 202, "t");
    let settled = system.wait_until_settled("t").await;
    assert_eq!(settled["status"], "FAILED", "{settled}");
    let line = worker.wait_for_line("cannot be reached").await;
    assert!(line.contains("c-17"), "{line}");
    for text in [settled.to_string(), worker.log(), system.api.process.log()] {
        for secret in ["hunter2", "hidden"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}

#[tokio::test]
async fn a_killed_worker_is_replaced_and_the_idempotency_key_stays() {
    let processor =
        FakeProcessor::start(|_, call| (200, None, Duration::from_secs(if call == 1 { 60 } else { 0 }))).await;
    let variables = [
        ("PROCESSOR_URL", &*processor.url),
        // One, because the crash of a worker does not count as an attempt of the processor.
        ("PROCESSOR_ATTEMPTS", "1"),
        ("QUEUE_LEASE_SECONDS", "1"),
        ("QUEUE_HEARTBEAT_SECONDS", "0.3"),
        ("QUEUE_RESCUE_SECONDS", "0.2"),
    ];
    let system = System::start(&variables).await;
    let worker = system.start_worker(&variables).await;
    let sent = system.send_webhook("t").await;
    eventually("the processor is called", SOON, async || processor.calls("t").len() == 1).await;
    let found = send(system.get("/v1/transactions/t")).await;
    assert_eq!((&found.json(), found.header("retry-after")), (&sent, "1"), "still processing");
    // Dropping the process kills it.
    drop(worker);
    let _replacement = system.start_worker(&variables).await;
    assert_eq!(system.wait_until_settled("t").await["status"], "PROCESSED");
    let calls = processor.calls("t");
    let keys: Vec<_> = calls.iter().map(|call| call.headers["idempotency-key"].to_str().unwrap()).collect();
    assert_eq!(keys, ["t", "t"]);
    assert_eq!(calls[0].body, calls[1].body);
}

#[tokio::test]
async fn database_errors_use_up_no_processor_attempt() {
    let processor = FakeProcessor::start(|_, _| (200, None, Duration::ZERO)).await;
    let variables = [("PROCESSOR_URL", &*processor.url), ("PROCESSOR_ATTEMPTS", "1")];
    let system = System::start(&variables).await;
    // The first settlement fails with a statement time-out.
    let stumble = "CREATE SEQUENCE tries;
        CREATE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('tries') = 1 THEN RAISE EXCEPTION 'internals' USING ERRCODE = '57014'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER stumble BEFORE UPDATE ON transactions FOR EACH ROW EXECUTE FUNCTION stumble()";
    sqlx::raw_sql(stumble).execute(&system.database.pool().await).await.unwrap();
    let _worker = system.start_worker(&variables).await;
    system.send_webhook("t").await;
    let settled = system.wait_until_settled("t").await;
    assert_eq!(settled["status"], "PROCESSED", "the processor agreed, so it is not FAILED: {settled}");
    assert_eq!(system.count("SELECT last_value FROM tries").await, 2);
    assert!(processor.calls("t").iter().all(|call| call.headers["idempotency-key"] == "t"));
}
