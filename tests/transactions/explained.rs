//! Why a call to the processor failed: operators read every cause and what the processor said, senders neither.

use serde_json::Value;

use super::{System, processor, processor::Processor, webhook};
use crate::harness::{http::ask, port::Port};

/// The errors of a transaction's job, as an operator reads them.
async fn errors_of(system: &System) -> String {
    let errors = "SELECT errors::text FROM apalis.jobs WHERE status = 'Killed'";
    sqlx::query_scalar(errors).fetch_one(&system.database.pool().await).await.unwrap()
}

/// Sends one transaction, whose processing fails with this text for its sender; what the operator reads.
async fn failed(url: &str, for_sender: &str) -> (String, String) {
    let variables = [("PROCESSOR_URL", url), ("PROCESSOR_ATTEMPTS", "1"), ("PROCESSOR_TIMEOUT_SECONDS", "1")];
    let system = System::start(&variables).await;
    let worker = system.worker(&variables).await;
    system.send("t").await;
    let settled = system.settled("t").await;
    assert_eq!((&settled["status"], &settled["error"]), (&"FAILED".into(), &for_sender.into()), "{settled}");
    let errors = errors_of(&system).await;
    for text in [&errors, &worker.log(), &system.api.process.log()] {
        for secret in ["hunter2", "hidden", "aHVudGVyMg"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    (errors, worker.log())
}

#[tokio::test]
async fn every_cause_of_a_failed_connection_is_kept() {
    // A port on which nothing listens, a name that is not there, and a server that speaks no TLS.
    let port = Port::free();
    let plain = Processor::start(|_, _| (200, None, std::time::Duration::ZERO)).await;
    let plain = plain.url.replace("http://", "https://user:hunter2@");
    for (url, cause) in [
        (format!("http://user:hunter2@127.0.0.1:{port}/charge?key=hidden"), "Connection refused"),
        ("http://user:hunter2@processor.invalid/charge?key=hidden".into(), "dns error"),
        (plain, "InvalidContentType"),
    ] {
        let (errors, log) = failed(&url, "processor cannot be reached").await;
        for text in [&errors, &log] {
            assert!(text.contains("processor cannot be reached: ") && text.contains(cause), "{cause}: {text}");
        }
    }
}

#[tokio::test]
async fn the_beginning_of_the_processors_body_is_kept() {
    for status in [402, 500, 409] {
        let processor = match status {
            402 => Processor::start(|_, _| (402, None, std::time::Duration::ZERO)).await,
            500 => Processor::start(|_, _| (500, None, std::time::Duration::ZERO)).await,
            _ => Processor::start(|_, _| (409, None, std::time::Duration::ZERO)).await,
        };
        let url = processor.url.replace("http://", "http://user:hunter2@");
        let reason = reqwest::StatusCode::from_u16(status).unwrap();
        let (errors, log) = failed(&url, &format!("processor returned {reason}")).await;
        let kept: Vec<Value> = serde_json::from_str(&errors).unwrap();
        let error = kept.last().unwrap()["error"].as_str().unwrap();
        assert!(
            error.starts_with(&format!("processor returned {reason}: {{\"reason\": \"t is not wanted\"")),
            "{error}"
        );
        assert!(error.contains("/charge?key=***") && error.len() < 600, "{error}");
        assert!(log.contains("t is not wanted"), "{log}");
        assert!(processor::body_of("t").len() > 1000, "more than is kept");
    }
}

#[tokio::test]
async fn a_body_that_does_not_end_keeps_no_call_waiting() {
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
            // Not closed.
            open.push(stream);
        }
    });
    let (errors, _) = failed(&url, "processor returned 422 Unprocessable Entity").await;
    assert!(errors.contains("because  of \u{fffd}") || errors.contains("because  of \\ufffd"), "{errors}");
}

#[tokio::test]
async fn an_operator_reads_it_with_the_job() {
    let processor = Processor::start(|_, _| (402, None, std::time::Duration::ZERO)).await;
    let variables = [("PROCESSOR_URL", &*processor.url)];
    let system = System::start(&variables).await;
    let _worker = system.worker(&variables).await;
    let sent = ask(system.post(webhook("t").to_string()).header("X-Correlation-Id", "c-1")).await;
    assert_eq!(sent.status, 202, "{sent:?}");
    system.settled("t").await;
    let id: String =
        sqlx::query_scalar("SELECT id FROM apalis.jobs").fetch_one(&system.database.pool().await).await.unwrap();
    let shown = std::process::Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["jobs", "show", &id])
        .env_clear()
        .env("DATABASE_URL", &system.database.url)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("402 Payment Required") && shown.contains("t is not wanted"), "{shown}");
}
