//! Clients that shut down their sending side after the request, as RFC 9112 §9.6 allows, and clients that disconnect.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::{SOON, raw_webhook, read_one_response};
use crate::harness::{
    eventually,
    http::{connect, read_response, send},
    process::http_client,
    system::{System, WEBHOOKS, webhook},
};

#[tokio::test]
async fn half_closed_senders_get_their_responses() {
    let system = System::start(&[]).await;
    for number in 0..20 {
        let id = format!("t-{number}");
        let mut stream = match number % 4 {
            0 => system.send_bytes(raw_webhook(&id).as_bytes()).await,
            1 => {
                let body = webhook(&id).to_string();
                let head = format!("POST {WEBHOOKS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
                system.send_bytes(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).await
            }
            // The last 60 bytes arrive in a separate packet.
            2 => {
                let request = raw_webhook(&id);
                let (head, body) = request.split_at(request.len() - 60);
                let mut stream = system.send_bytes(head.as_bytes()).await;
                tokio::task::yield_now().await;
                stream.write_all(body.as_bytes()).await.unwrap();
                stream
            }
            // The second request of a connection.
            _ => {
                let mut stream = system.send_bytes(raw_webhook(&format!("before-{id}")).as_bytes()).await;
                assert!(read_one_response(&mut stream).await.starts_with("HTTP/1.1 202"));
                stream.write_all(raw_webhook(&id).as_bytes()).await.unwrap();
                stream
            }
        };
        stream.shutdown().await.unwrap();
        let response = read_response(stream).await;
        assert_eq!(
            (response.status, &response.json()["transaction_id"]),
            (202, &Value::from(id)),
            "{number}: {response:?}"
        );
    }
    assert_eq!(system.count_transactions().await, 25);

    let both = raw_webhook("p-1") + &raw_webhook("p-2");
    let mut stream = system.send_bytes(both.as_bytes()).await;
    stream.shutdown().await.unwrap();
    let responses = read_response(stream).await;
    assert_eq!(responses.status, 202);
    assert!(responses.text.contains("\"p-1\"") && responses.text.contains("HTTP/1.1 202"), "{responses:?}");

    // A body that ends early is not a webhook.
    let cut = raw_webhook("cut");
    let mut stream = system.send_bytes(&cut.as_bytes()[..cut.len() - 1]).await;
    stream.shutdown().await.unwrap();
    read_response(stream).await.assert_problem(400, "a truncated body");
    assert_eq!(system.count_transactions().await, 27);
}

/// How many long polls have ended, by the log.
fn count_finished_polls(system: &System) -> usize {
    let log = system.api.process.log();
    log.lines().filter(|line| line.contains("COMPLETED_REQUEST") && line.contains("/v1/transactions/t")).count()
}

#[tokio::test]
async fn disconnected_long_pollers_are_noticed_at_once() {
    let system = System::start(&[("PROCESSING_DELAY_SECONDS", "3600")]).await;
    system.send_webhook("t").await;
    let long_poll = b"GET /v1/transactions/t?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut pollers = Vec::new();
    for _ in 0..40 {
        pollers.push(system.send_bytes(long_poll).await);
    }
    // All of them wait by now, because a request whose connection came after theirs has its response.
    let waited = send(http_client().get(format!("{}/v1/transactions/t?wait=0.5", system.api.url))).await;
    assert_eq!(waited.status, 200);
    eventually("the log has the short poll", SOON, async || count_finished_polls(&system) > 0).await;
    assert_eq!(count_finished_polls(&system), 1, "{}", system.api.process.log());
    let began = Instant::now();
    for (number, poller) in pollers.into_iter().enumerate() {
        if number % 2 == 0 {
            poller.set_zero_linger().unwrap();
        }
        drop(poller);
    }
    eventually("40 long polls have ended", Duration::from_secs(10), async || count_finished_polls(&system) == 41).await;
    println!("40 long polls of 60 s disconnected, half of them by a reset: noticed after {:.2?}", began.elapsed());

    // A client that only shuts down its sending side gets the current state.
    let mut stream = connect(&system.api.url).await;
    stream.write_all(long_poll).await.unwrap();
    stream.shutdown().await.unwrap();
    let response = tokio::time::timeout(Duration::from_secs(10), read_response(stream)).await.expect("at once");
    assert_eq!((response.status, &response.json()["status"]), (200, &Value::from("PROCESSING")));
}
