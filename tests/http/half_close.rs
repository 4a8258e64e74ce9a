//! Clients that shut down their side once they have sent all, as RFC 9112 §9.6 allows; and clients that leave.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::{System, WEBHOOKS, one_answer, post, webhook};
use crate::harness::{
    eventually,
    http::{connect, read_response, send},
};

#[tokio::test]
async fn of_twenty_senders_that_shut_down_their_side_each_gets_its_answer() {
    let system = System::start(&[]).await;
    for number in 0..20 {
        let id = format!("t-{number}");
        let mut stream = match number % 4 {
            0 => system.sent(post(&id, "").as_bytes()).await,
            1 => {
                let body = webhook(&id).to_string();
                let head = format!("POST {WEBHOOKS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
                system.sent(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).await
            }
            // The body and the end of it in a packet of their own.
            2 => {
                let request = post(&id, "");
                let (head, body) = request.split_at(request.len() - 60);
                let mut stream = system.sent(head.as_bytes()).await;
                tokio::task::yield_now().await;
                stream.write_all(body.as_bytes()).await.unwrap();
                stream
            }
            // The second request of its connection.
            _ => {
                let mut stream = system.sent(post(&format!("before-{id}"), "").as_bytes()).await;
                assert!(one_answer(&mut stream).await.starts_with("HTTP/1.1 202"));
                stream.write_all(post(&id, "").as_bytes()).await.unwrap();
                stream
            }
        };
        stream.shutdown().await.unwrap();
        let answer = read_response(stream).await;
        assert_eq!((answer.status, &answer.json()["transaction_id"]), (202, &Value::from(id)), "{number}: {answer:?}");
    }
    assert_eq!(system.recorded().await, 25);

    let both = post("p-1", "") + &post("p-2", "");
    let mut stream = system.sent(both.as_bytes()).await;
    stream.shutdown().await.unwrap();
    let answers = read_response(stream).await;
    assert_eq!(answers.status, 202);
    assert!(answers.text.contains("\"p-1\"") && answers.text.contains("HTTP/1.1 202"), "{answers:?}");

    // What never comes to an end is no webhook.
    let cut = post("cut", "");
    let mut stream = system.sent(&cut.as_bytes()[..cut.len() - 1]).await;
    stream.shutdown().await.unwrap();
    read_response(stream).await.assert_problem(400, "broken off");
    assert_eq!(system.recorded().await, 27);
}

/// The waits that have ended, by the log.
fn ended(system: &System) -> usize {
    let log = system.api.process.log();
    log.lines().filter(|line| line.contains("COMPLETED_REQUEST") && line.contains("/v1/transactions/t")).count()
}

#[tokio::test]
async fn twenty_long_pollers_that_leave_are_noticed_at_once() {
    let system = System::start(&[("PROCESSING_DELAY_SECONDS", "3600")]).await;
    let sent = send(system.call(reqwest::Method::POST, WEBHOOKS).json(&webhook("t"))).await;
    assert_eq!(sent.status, 202);
    let poll = b"GET /v1/transactions/t?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut pollers = Vec::new();
    for _ in 0..40 {
        pollers.push(system.sent(poll).await);
    }
    // They wait: a look that came after them is answered.
    let waited = send(system.call(reqwest::Method::GET, "/v1/transactions/t?wait=0.5")).await;
    assert_eq!(waited.status, 200);
    eventually("its line is in the log", super::SOON, async || ended(&system) > 0).await;
    assert_eq!(ended(&system), 1, "{}", system.api.process.log());
    let began = Instant::now();
    for (number, poller) in pollers.into_iter().enumerate() {
        if number % 2 == 0 {
            poller.set_zero_linger().unwrap();
        }
        drop(poller);
    }
    eventually("40 waits have ended", Duration::from_secs(10), async || ended(&system) == 41).await;
    println!("40 long-pollers of 60 s that left, half of them by a reset: noticed after {:.2?}", began.elapsed());

    // One that only shuts down its side gets what there is.
    let mut stream = connect(&system.api.url).await;
    stream.write_all(poll).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), read_response(stream)).await.expect("at once");
    assert_eq!((answer.status, &answer.json()["status"]), (200, &Value::from("PROCESSING")));
}
