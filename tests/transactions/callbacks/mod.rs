//! Callbacks: each settlement reaches its receiver, signed, at least once and with the same id in every try.

mod addresses;
mod disabling;
mod fake_receiver;
mod interfaces;
mod libraries;
mod retries;

use std::time::Duration;

use jobs::transactions::{Config, Transactions};
use queue::{Queue, Retention};
use reqwest::Method;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use self::fake_receiver::{FakeReceiver, Reply};
use super::{
    System,
    fake_processor::FakeProcessor,
    signatures::{headers, secret, sign},
    webhook,
};
use crate::{
    harness::{
        eventually,
        http::{HttpResponse, send},
        system::WEBHOOKS,
    },
    operators::in_time,
};

const SOON: Duration = Duration::from_secs(30);
const OLD: &[u8] = b"the secret that is rotated out";
const NEW: &[u8] = b"the secret that is rotated in";
const ACME: &[u8] = b"the secret of acme's receiver";

/// The variables of all processes: callbacks go to this URL, and transactions are due at once.
fn variables<'v>(url: &'v str, secrets: &'v str) -> Vec<(&'v str, &'v str)> {
    vec![
        ("CALLBACK_URL", url),
        ("CALLBACK_SECRET", secrets),
        ("CALLBACK_ALLOW_PRIVATE", "true"),
        ("PROCESSING_DELAY_SECONDS", "0"),
        ("QUEUE_POLL_SECONDS", "0.05"),
    ]
}

impl System {
    /// Sends a webhook that this secret signs.
    async fn send_signed(&self, id: &str, key: &[u8]) {
        let response = self.post_signed(WEBHOOKS, id, webhook(id).to_string(), key).await;
        assert_eq!(response.status, 202, "{id}: {response:?}");
    }

    /// Posts a body, as a message with this id that this secret signs.
    async fn post_signed(&self, path: &str, id: &str, body: String, key: &[u8]) -> HttpResponse {
        let now = OffsetDateTime::now_utc().unix_timestamp().to_string();
        let signed = headers(id, &now, &sign(key, id, &now, &body));
        let request = self.request(Method::POST, path).header("content-type", "application/json").body(body);
        send(signed.iter().fold(request, |request, (name, value)| request.header(*name, value))).await
    }

    /// Waits until this query returns this number.
    async fn wait_for_count(&self, query: &str, expected: i64) {
        eventually(query, SOON, async || self.count(query).await == expected).await;
    }

    /// Reads a view with the operator's key.
    async fn read_view(&self, path: &str) -> Value {
        let response = in_time::view(self.get(path).header("x-api-key", "your-admin-api-key-here")).await;
        assert_eq!(response.status, 200, "{path}: {response:?}");
        response.json()
    }
}

const DELIVERED: &str = "SELECT count(*) FROM callbacks WHERE delivered_at IS NOT NULL";

#[tokio::test]
async fn a_settlement_is_posted_with_the_signature_of_every_secret() {
    let receiver = FakeReceiver::start(&[], Reply::OK).await;
    let processor = FakeProcessor::start(|id, _| (if id == "bad" { 422 } else { 200 }, None, Duration::ZERO)).await;
    let (url, secrets) = (format!("{}/hook?key=hidden", receiver.url), format!("{},{}", secret(OLD), secret(NEW)));
    let variables = [variables(&url, &secrets), vec![("PROCESSOR_URL", &processor.url)]].concat();
    let system = System::start(&variables).await;
    let worker = system.start_worker(&variables).await;
    let sent = send(system.post_webhook(webhook("good").to_string()).header("X-Correlation-Id", "c-1")).await;
    assert_eq!(sent.status, 202, "{sent:?}");
    system.send_webhook("bad").await;
    let messages = receiver.wait_for(2).await;
    for (id, kind) in [("good", "transaction.processed"), ("bad", "transaction.failed")] {
        let message = messages.iter().find(|one| one.json()["data"]["transaction_id"] == id).expect(id);
        let body = message.json();
        let current = send(system.get(&format!("/v1/transactions/{id}"))).await;
        assert_eq!((&body["type"], &body["timestamp"]), (&kind.into(), &current.json()["processed_at"]), "{body}");
        let expected =
            format!("{{\"type\":\"{kind}\",\"timestamp\":{},\"data\":{}}}", body["timestamp"], current.text.trim());
        assert_eq!(message.body, expected, "exactly the JSON of the transaction");
        assert!(message.is_signed_by(OLD) && message.is_signed_by(NEW) && !message.is_signed_by(ACME));
        assert_eq!((message.path.as_str(), message.header("content-type")), ("/hook?key=hidden", "application/json"));
        assert!(message.header("user-agent").starts_with("millrace/"), "{message:?}");
    }
    assert_ne!(messages[0].id(), messages[1].id(), "each settlement has its own id");
    system.wait_for_count(DELIVERED, 2).await;
    let pool = system.database.pool().await;
    let columns = "SELECT id::text, attempts, last_status, destination, (SELECT status FROM apalis.jobs
                   WHERE job_type = 'send_callback' AND metadata -> 'correlation_id' = 'c-1')
                   FROM callbacks WHERE kind = 'transaction.processed'";
    let good = messages.iter().find(|one| one.json()["type"] == "transaction.processed").expect("good");
    let row =
        async || -> (String, i32, i32, String, String) { sqlx::query_as(columns).fetch_one(&pool).await.unwrap() };
    eventually("its job is done", SOON, async || row().await.4 == "Done").await;
    assert_eq!(row().await, (good.id().to_owned(), 1, 204, String::new(), "Done".into()));
    for log in [worker.log(), system.api.process.log()] {
        assert!(!log.contains("hidden") && !log.contains("whsec_"), "{log}");
    }
}

#[tokio::test]
async fn without_a_url_settlements_are_not_recorded_for_callbacks() {
    let system = System::start(&[("PROCESSING_DELAY_SECONDS", "0")]).await;
    let _worker = system.start_worker(&[("PROCESSING_DELAY_SECONDS", "0")]).await;
    system.send_webhook("t").await;
    assert_eq!(system.wait_until_settled("t").await["status"], "PROCESSED");
    assert_eq!(system.count("SELECT count(*) FROM callbacks").await, 0);
    assert_eq!(system.count("SELECT count(*) FROM apalis.jobs WHERE job_type = 'send_callback'").await, 0);
}

#[tokio::test]
async fn a_sender_with_its_own_url_has_its_own_secret() {
    let receiver = FakeReceiver::start(&[], Reply::OK).await;
    let url = format!("acme:{0}/acme,{0}/rest", receiver.url);
    let secrets = format!("acme:{},{}", secret(ACME), secret(NEW));
    let signers = format!(
        "acme:{},beta:{},{}",
        secret(b"acme signs with this secret"),
        secret(b"beta signs with this secret"),
        secret(OLD)
    );
    let variables = [variables(&url, &secrets), vec![("WEBHOOK_SECRET", &signers)]].concat();
    let system = System::start(&variables).await;
    let _worker = system.start_worker(&variables).await;
    system.send_signed("of-acme", b"acme signs with this secret").await;
    system.send_signed("of-beta", b"beta signs with this secret").await;
    system.send_signed("of-another", OLD).await;
    let messages = receiver.wait_for(3).await;
    for (id, path, key, other) in
        [("of-acme", "/acme", ACME, NEW), ("of-beta", "/rest", NEW, ACME), ("of-another", "/rest", NEW, ACME)]
    {
        let message = messages.iter().find(|one| one.json()["data"]["transaction_id"] == id).expect(id);
        assert_eq!(message.path, path, "{id}");
        assert!(message.is_signed_by(key) && !message.is_signed_by(other), "{id}");
    }
    system
        .wait_for_count("SELECT count(*) FROM callbacks WHERE destination = 'acme' AND delivered_at IS NOT NULL", 1)
        .await;
    system
        .wait_for_count("SELECT count(*) FROM callbacks WHERE destination = '' AND delivered_at IS NOT NULL", 2)
        .await;
}

#[tokio::test]
async fn an_operators_cancellation_is_a_settlement_and_a_replay_another_one() {
    let receiver = FakeReceiver::start(&[], Reply::OK).await;
    let secrets = secret(NEW);
    let mut variables = variables(&receiver.url, &secrets);
    let system = System::start(&[&variables[..], &[("PROCESSING_DELAY_SECONDS", "3600")]].concat()).await;
    system.send_webhook("t").await;
    let admin = |path: &str| {
        let request = system.request(Method::POST, path).header("x-api-key", "your-admin-api-key-here");
        send(request.json(&serde_json::json!({"reason": "a test"})))
    };
    let job: String =
        sqlx::query_scalar("SELECT id FROM apalis.jobs").fetch_one(&system.database.pool().await).await.unwrap();
    assert_eq!(admin(&format!("/admin/queue/jobs/{job}/cancel")).await.status, 200);
    // The API has settled it, and a worker sends the callback.
    variables.push(("PROCESSING_DELAY_SECONDS", "0"));
    let _worker = system.start_worker(&variables).await;
    let failed = receiver.wait_for(1).await[0].clone();
    assert_eq!(
        (&failed.json()["type"], &failed.json()["data"]["status"]),
        (&"transaction.failed".into(), &"FAILED".into())
    );
    // The receiver has the message before its delivery is recorded, and the timeline has the order of the records.
    system.wait_for_count(DELIVERED, 1).await;
    assert_eq!(admin(&format!("/admin/queue/jobs/{job}/replay")).await.status, 200);
    let processed = receiver.wait_for(2).await[1].clone();
    assert_eq!(processed.json()["type"], "transaction.processed");
    assert_ne!(failed.id(), processed.id());
    system.wait_for_count(DELIVERED, 2).await;

    let timeline = system.read_view("/v1/transactions/t/timeline").await;
    let events: Vec<&Value> = timeline["events"].as_array().expect("events").iter().collect();
    let callbacks: Vec<&str> = events
        .iter()
        .filter(|one| one["event"] == "callback")
        .map(|one| one["text"].as_str().expect("a text"))
        .collect();
    assert_eq!(callbacks.len(), 4, "{timeline:#}");
    assert!(
        callbacks[0].contains("was enqueued") && callbacks[1].contains("was delivered: status 204, after 1 tries"),
        "{callbacks:?}"
    );
    let last = |event: &str| events.iter().rposition(|one| one["event"] == event).expect("an event");
    assert!(last("processed") < last("callback"), "{timeline:#}");
    assert_eq!(events[last("callback")]["details"]["callback"], processed.id());
}

#[tokio::test]
async fn callbacks_are_deleted_after_their_retention() {
    let system = System::start(&[]).await;
    let pool = system.database.pool().await;
    // An id begins with its time, as UUIDv7 do. The callback that still waits is kept, although it is the oldest.
    let insert = "INSERT INTO callbacks (id, transaction_id, destination, kind, created_at, delivered_at)
                  SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || '7000800000000000' || lpad(n::text, 4, '0'))::uuid,
                         gen_random_uuid(), name, 'transaction.processed', at, CASE WHEN name <> 'waiting' THEN at END
                  FROM (VALUES ('old', interval '30 days 1 min', 7000), ('waiting', interval '40 days', 1), ('young', interval '29 days', 2))
                       AS given (name, age, count),
                       LATERAL (SELECT now() - age AS at) AS times, LATERAL generate_series(1, count) AS n";
    sqlx::query(insert).execute(&pool).await.unwrap();
    let stop = CancellationToken::new();
    let queue = Queue::start(pool.clone().into());
    let transactions = Transactions::start(&pool.clone().into(), &queue, &Config::default(), stop.clone()).unwrap();
    let often = Retention { every: Duration::from_millis(5), ..Retention::DEFAULT };
    let retaining = tokio::spawn(transactions.delete_expired_callbacks(often));
    system.wait_for_count("SELECT count(*) FROM callbacks", 3).await;
    stop.cancel();
    retaining.await.unwrap();
    assert_eq!(system.count("SELECT count(*) FROM callbacks WHERE destination = 'waiting'").await, 1);
}
