//! Retries: failures, lost workers and slow receivers. A message that was taken is never sent with another id or body.

use std::{
    collections::HashSet,
    net::TcpListener,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use super::{super::webhook, ACME, DELIVERED, FakeReceiver, NEW, OLD, Reply, SOON, System, secret, variables};
use crate::harness::{eventually, http::send, system::WEBHOOKS};

#[tokio::test]
async fn failures_are_retried_with_the_same_id_and_body_and_redirects_are_not_followed() {
    let busy = Reply { header: Some(("Retry-After", "2")), ..Reply::status(500) };
    let moved = Reply { header: Some(("Location", "/elsewhere")), ..Reply::status(307) };
    let receiver = FakeReceiver::start(&[busy, moved], Reply::OK).await;
    let (url, secrets) = (format!("{}/hook", receiver.url), secret(NEW));
    let variables = variables(&url, &secrets);
    let system = System::start(&variables).await;
    let _worker = system.start_worker(&variables).await;
    system.send_webhook("t").await;
    let messages = receiver.wait_for(3).await;
    for message in &messages {
        assert_eq!(
            (message.path.as_str(), message.id(), &message.body),
            ("/hook", messages[0].id(), &messages[0].body)
        );
        assert!(message.is_signed_by(NEW), "each try is signed with its own time");
    }
    let pause = messages[1].at - messages[0].at;
    assert!(pause >= Duration::from_secs(2), "Retry-After is the least, {pause:?}");
    system.wait_for_count(DELIVERED, 1).await;
    let row: (i32, i32, Option<String>) = sqlx::query_as("SELECT attempts, last_status, last_error FROM callbacks")
        .fetch_one(&system.database.pool().await)
        .await
        .unwrap();
    assert_eq!(row, (3, 204, None));
    assert_eq!(receiver.messages().len(), 3);
    assert_eq!(system.count("SELECT count(*) FROM callback_destinations WHERE failing_since IS NOT NULL").await, 0);
}

/// A request whose failure cannot be recorded is a failure all the same: its backoff and its `Retry-After` count.
#[tokio::test]
async fn a_failure_that_is_not_recorded_is_retried_no_earlier() {
    let busy = Reply { header: Some(("Retry-After", "3600")), ..Reply::status(503) };
    let receiver = FakeReceiver::start(&[], busy).await;
    let secrets = secret(NEW);
    let variables = variables(&receiver.url, &secrets);
    let system = System::start(&variables).await;
    system.set_callbacks("pause").await;
    let _worker = system.start_worker(&variables).await;
    system.send_webhook("t").await;
    let waits = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'send_callback' AND status = 'Pending'";
    system.wait_for_count(waits, 1).await;
    let pool = system.database.pool().await;
    let mut held = pool.begin().await.unwrap();
    // Callbacks can be read, and not written.
    sqlx::query("LOCK TABLE callbacks IN EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    system.set_callbacks("resume").await;
    let retried =
        "SELECT count(*) FROM apalis.jobs WHERE job_type = 'send_callback' AND status = 'Pending' AND failures = 1
                   AND run_at > now() + interval '50 min'";
    system.wait_for_count(retried, 1).await;
    held.rollback().await.unwrap();
    assert_eq!(system.count("SELECT attempts::int8 FROM callbacks").await, 0, "it could not be recorded");
    assert_eq!(receiver.messages().len(), 1);
}

#[tokio::test]
async fn a_message_whose_worker_is_killed_is_sent_again_with_the_same_id() {
    let slow = Reply { takes: Duration::from_secs(60), ..Reply::OK };
    let receiver = FakeReceiver::start(&[slow], Reply::OK).await;
    let secrets = secret(NEW);
    let quick = [("QUEUE_LEASE_SECONDS", "1"), ("QUEUE_HEARTBEAT_SECONDS", "0.2"), ("QUEUE_RESCUE_SECONDS", "0.2")];
    let variables = [&variables(&receiver.url, &secrets)[..], &quick].concat();
    let system = System::start(&variables).await;
    let mut worker = system.start_worker(&variables).await;
    system.send_webhook("t").await;
    receiver.wait_for(1).await;
    worker.signal(Signal::SIGKILL);
    worker.wait_for_exit(SOON).await;
    assert_eq!(system.count(DELIVERED).await, 0);
    let _worker = system.start_worker(&variables).await;
    let messages = receiver.wait_for(2).await;
    assert_eq!((messages[0].id(), &messages[0].body), (messages[1].id(), &messages[1].body));
    system.wait_for_count(DELIVERED, 1).await;
    assert_eq!(receiver.messages().len(), 2);
}

#[tokio::test]
async fn a_receiver_that_hangs_has_16_calls_and_delays_no_other() {
    const HANGING: usize = 40;
    let hanging = FakeReceiver::start(&[], Reply { takes: Duration::from_secs(60), ..Reply::OK }).await;
    let healthy = FakeReceiver::start(&[], Reply::OK).await;
    let url = format!("acme:{},{}", hanging.url, healthy.url);
    let secrets = secret(NEW);
    let signers = format!("acme:{},{}", secret(ACME), secret(OLD));
    let variables = [variables(&url, &secrets), vec![("WEBHOOK_SECRET", &signers)]].concat();
    let system = System::start(&variables).await;
    for number in 0..HANGING {
        system.send_signed(&format!("acme-{number}"), ACME).await;
    }
    let _worker = system.start_worker(&variables).await;
    eventually("the receiver has all its calls", SOON, async || hanging.messages().len() == 16).await;
    system.send_signed("other", OLD).await;
    let other = healthy.wait_for(1).await;
    assert_eq!(other[0].json()["data"]["transaction_id"], "other");
    // The first call ends after 10 s; none of the others has begun.
    assert_eq!(hanging.messages().len(), 16);
    let snoozed =
        "SELECT count(*) FROM apalis.jobs WHERE job_type = 'send_callback' AND status = 'Pending' AND failures = 0";
    eventually("the others wait without a slot", SOON, async || {
        system.count(snoozed).await == i64::try_from(HANGING - 16).expect("a number")
    })
    .await;
}

/// The secret of a sender whose receiver hangs.
fn key(number: usize) -> Vec<u8> {
    format!("the secret of the sender {number:02}").into_bytes()
}

impl System {
    /// Pauses or resumes the queue of callbacks.
    async fn set_callbacks(&self, action: &str) {
        let request = self.request(Method::POST, &format!("/admin/queue/queues/send_callback/{action}"));
        let request = request.header("x-api-key", "your-admin-api-key-here").json(&json!({"reason": "a test"}));
        let response = send(request).await;
        assert_eq!(response.status, 200, "{action}: {response:?}");
    }
}

#[tokio::test]
async fn receivers_that_hang_at_once_leave_slots_to_others() {
    // A machine that stalls may need more than the ten seconds of a call. Then another round shows it.
    for _ in 0..3 {
        if others_arrive_while_all_calls_hang().await {
            return;
        }
    }
    panic!("the others have arrived only after calls that hang had ended");
}

/// Sends callbacks to receivers that hang, more than a worker has slots and all due in the same moment, and then some
/// to a healthy one. Returns whether these have arrived while all calls that hang still run.
async fn others_arrive_while_all_calls_hang() -> bool {
    const HANGING: usize = 70;
    const EACH: usize = 16;
    const OTHERS: usize = 20;
    // A listener without a program behind it accepts connections and never responds.
    let hanging: Vec<_> = (0..HANGING).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let healthy = FakeReceiver::start(&[], Reply::OK).await;
    let (mut url, mut signers, secrets) = (healthy.url.clone(), secret(OLD), secret(NEW));
    for (number, listener) in hanging.iter().enumerate() {
        url += &format!(",s-{number}:http://{}", listener.local_addr().expect("an address"));
        signers += &format!(",s-{number}:{}", secret(&key(number)));
    }
    let variables = [variables(&url, &secrets), vec![("WEBHOOK_SECRET", &signers)]].concat();
    let system = System::start(&variables).await;
    system.set_callbacks("pause").await;
    let _worker = system.start_worker(&variables).await;
    for number in 0..HANGING {
        let rows: Vec<Value> = (0..EACH).map(|row| webhook(&format!("t-{number}-{row}"))).collect();
        let (path, id) = (format!("{WEBHOOKS}/batch"), format!("batch-{number}"));
        let response = system.post_signed(&path, &id, Value::from(rows).to_string(), &key(number)).await;
        assert_eq!(response.status, 200, "{response:?}");
    }
    let all = i64::try_from(HANGING * EACH).expect("a number");
    system.wait_for_count("SELECT count(*) FROM callbacks WHERE destination <> ''", all).await;
    system.set_callbacks("resume").await;
    let claimed = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'send_callback' AND attempts > 0";
    system.wait_for_count(claimed, all).await;
    for number in 0..OTHERS {
        system.send_signed(&format!("other-{number}"), OLD).await;
    }
    healthy.wait_for(OTHERS).await;
    // A call to a receiver that hangs ends after 10 s, as a failed try.
    system.count("SELECT count(*) FROM callbacks WHERE destination <> '' AND attempts > 0").await == 0
}

/// More settlements at once than the receiver has calls: the others wait for a moment, and nothing is sent twice.
#[tokio::test]
async fn a_burst_is_delivered_once_each() {
    const BURST: usize = 600;
    let receiver = FakeReceiver::start(&[], Reply { takes: Duration::from_millis(10), ..Reply::OK }).await;
    let secrets = secret(NEW);
    let variables = variables(&receiver.url, &secrets);
    let system = System::start(&variables).await;
    let sent = (0..BURST).map(|number| system.post_webhook(webhook(&format!("t-{number}")).to_string()));
    let responses = join_all(sent.map(send)).await;
    assert!(responses.iter().all(|response| response.status == 202), "{responses:?}");
    let begun = Instant::now();
    let _worker = system.start_worker(&variables).await;
    system.wait_for_count(DELIVERED, i64::try_from(BURST).expect("a number")).await;
    println!("{BURST} callbacks of 10 ms are delivered in {:.1?}", begun.elapsed());
    let ids: HashSet<String> = receiver.messages().iter().map(|message| message.id().to_owned()).collect();
    assert_eq!((receiver.messages().len(), ids.len()), (BURST, BURST));
    assert_eq!(system.count("SELECT max(attempts)::int8 FROM callbacks").await, 1);
}
