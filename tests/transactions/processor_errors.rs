//! Processor errors: operators see every cause and the processor's response, senders see neither.

use std::time::Duration;

use serde_json::Value;

use super::{
    System,
    fake_processor::{self, FakeProcessor},
    webhook,
};
use crate::harness::{eventually, http::send, port::Port};

/// The errors of the killed job, as operators see them.
async fn job_errors(system: &System) -> String {
    let pool = system.database.pool().await;
    let errors = async || {
        let query = "SELECT errors::text FROM apalis.jobs WHERE status = 'Killed'";
        sqlx::query_scalar::<_, String>(query).fetch_optional(&pool).await.expect("errors")
    };
    // The transaction is FAILED a moment before its job is.
    eventually("the job is a dead letter", Duration::from_secs(20), async || errors().await.is_some()).await;
    errors().await.expect("a dead letter")
}

/// Sends one transaction, which fails with this text for its sender. Returns the job's errors and the worker's log.
async fn fail_one_transaction(url: &str, for_sender: &str) -> (String, String) {
    // A call that takes longer would fail with another text. The test waits for 30 s.
    let variables = [("PROCESSOR_URL", url), ("PROCESSOR_ATTEMPTS", "1"), ("PROCESSOR_TIMEOUT_SECONDS", "20")];
    let system = System::start(&variables).await;
    let mut worker = system.start_worker(&variables).await;
    system.send_webhook("t").await;
    let settled = system.wait_until_settled("t").await;
    assert_eq!((&settled["status"], &settled["error"]), (&"FAILED".into(), &for_sender.into()), "{settled}");
    let errors = job_errors(&system).await;
    // Another thread writes the log.
    worker.wait_for_line(for_sender).await;
    for text in [&errors, &worker.log(), &system.api.process.log()] {
        for secret in ["hunter2", "hidden", "aHVudGVyMg"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    (errors, worker.log())
}

#[tokio::test]
async fn operators_see_every_cause_of_a_failed_connection() {
    // A port without a listener, an unknown host name, and a server without TLS.
    let port = Port::free();
    let plain = FakeProcessor::start(|_, _| (200, None, std::time::Duration::ZERO)).await;
    let plain = plain.url.replace("http://", "https://user:hunter2@");
    for (url, cause) in [
        (format!("http://user:hunter2@127.0.0.1:{port}/charge?key=hidden"), "Connection refused"),
        ("http://user:hunter2@processor.invalid/charge?key=hidden".into(), "dns error"),
        (plain, "InvalidContentType"),
    ] {
        let (errors, log) = fail_one_transaction(&url, "processor cannot be reached").await;
        for text in [&errors, &log] {
            assert!(text.contains("processor cannot be reached: ") && text.contains(cause), "{cause}: {text}");
        }
    }
}

#[tokio::test]
async fn operators_see_the_start_of_the_processor_response() {
    for status in [402, 500, 409] {
        let processor = match status {
            402 => FakeProcessor::start(|_, _| (402, None, std::time::Duration::ZERO)).await,
            500 => FakeProcessor::start(|_, _| (500, None, std::time::Duration::ZERO)).await,
            _ => FakeProcessor::start(|_, _| (409, None, std::time::Duration::ZERO)).await,
        };
        let url = processor.url.replace("http://", "http://user:hunter2@");
        let reason = reqwest::StatusCode::from_u16(status).unwrap();
        let (errors, log) = fail_one_transaction(&url, &format!("processor returned {reason}")).await;
        let errors: Vec<Value> = serde_json::from_str(&errors).unwrap();
        let error = errors.last().unwrap()["error"].as_str().unwrap();
        assert!(
            error.starts_with(&format!("processor returned {reason}: {{\"reason\": \"t is not wanted\"")),
            "{error}"
        );
        assert!(error.contains("/charge?key=***") && error.len() < 600, "{error}");
        assert!(log.contains("t is not wanted"), "{log}");
        assert!(fake_processor::response_body("t").len() > 1000, "longer than the stored part");
    }
}

#[tokio::test]
async fn an_unfinished_processor_response_does_not_block_the_call() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await;
            let head = "HTTP/1.1 422 Unprocessable Content\r\ncontent-length: 1000\r\n\r\nbecause\0 of \u{fffd}";
            let _ = stream.write_all(head.as_bytes()).await;
            // Stays open.
            open.push(stream);
        }
    });
    let (errors, _) = fail_one_transaction(&url, "processor returned 422 Unprocessable Entity").await;
    assert!(errors.contains("because  of \u{fffd}") || errors.contains("because  of \\ufffd"), "{errors}");
}

#[tokio::test]
async fn the_job_shows_the_processor_error_to_operators() {
    let processor = FakeProcessor::start(|_, _| (402, None, std::time::Duration::ZERO)).await;
    let variables = [("PROCESSOR_URL", &*processor.url)];
    let system = System::start(&variables).await;
    let _worker = system.start_worker(&variables).await;
    let sent = send(system.post_webhook(webhook("t").to_string()).header("X-Correlation-Id", "c-1")).await;
    assert_eq!(sent.status, 202, "{sent:?}");
    system.wait_until_settled("t").await;
    job_errors(&system).await;
    let id = "SELECT id FROM apalis.jobs WHERE job_type = 'process_transaction'";
    let id: String = sqlx::query_scalar(id).fetch_one(&system.database.pool().await).await.unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["jobs", "show", &id])
        .env_clear()
        .env("DATABASE_URL", &system.database.url)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("402 Payment Required") && text.contains("t is not wanted"), "{text}");
}
