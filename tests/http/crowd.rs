//! More connections than a process may have: it serves what it can, and says how it is all the same.

use std::process::Command;

use tokio::net::TcpStream;

use super::{SOON, WEBHOOKS, one_answer, webhook};
use crate::harness::{
    database, eventually,
    http::{ask, connect, read},
    process::{Process, client},
};
use tokio::io::AsyncWriteExt;

/// Starts an API process under these limits of open files.
async fn start(database: &str, ulimit: &str) -> (Process, String) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{ulimit}; exec \"$0\" api"), env!("CARGO_BIN_EXE_millrace")]).current_dir("/");
    let variables =
        [("DATABASE_URL", database), ("PORT", "0"), ("LOG_FORMAT", "json"), ("PROCESSING_DELAY_SECONDS", "3600")];
    let mut process = Process::run("api", command, &variables);
    let line: serde_json::Value = serde_json::from_str(&process.printed(r#""event":"listening""#).await).unwrap();
    (process, format!("http://{}", line["address"].as_str().expect("an address")))
}

async fn poll(url: &str) -> TcpStream {
    let mut stream = connect(url).await;
    stream.write_all(b"GET /v1/transactions/t?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    stream
}

#[tokio::test]
async fn a_soft_limit_of_files_is_raised() {
    let database = database::fresh().await;
    let (mut process, url) = start(&database.url, "ulimit -Sn 256").await;
    let line: serde_json::Value = serde_json::from_str(&process.printed("limit of open files").await).unwrap();
    let (before, now) = (line["before"].as_u64().unwrap(), line["now"].as_u64().unwrap());
    assert!(before == 256 && now >= 1024, "{line}");
    let sent = ask(client().post(format!("{url}{WEBHOOKS}")).json(&webhook("t"))).await;
    assert_eq!(sent.status, 202);
    let mut pollers = Vec::new();
    for _ in 0..400 {
        pollers.push(poll(&url).await);
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(ask(client().get(format!("{url}{path}")).timeout(SOON)).await.status, 200, "{path}");
    }
    drop(pollers);
}

#[tokio::test]
async fn at_the_hard_limit_strangers_are_refused_and_health_is_not() {
    let database = database::fresh().await;
    let (process, url) = start(&database.url, "ulimit -n 320").await;
    let sent = ask(client().post(format!("{url}{WEBHOOKS}")).json(&webhook("t"))).await;
    assert_eq!(sent.status, 202);
    let mut pollers = Vec::new();
    for _ in 0..300 {
        pollers.push(poll(&url).await);
    }
    // Beyond 128 connections they are refused, politely: with a reason, and when to come back.
    let refused = read(pollers.pop().unwrap()).await;
    refused.assert_problem(503, "beyond the limit");
    assert_eq!((refused.header("retry-after"), refused.header("connection")), ("1", "close"), "{refused:?}");
    for _ in 0..20 {
        for path in ["/livez", "/readyz", "/metrics", "/api/v1/health"] {
            let answer = ask(client().get(format!("{url}{path}")).timeout(SOON)).await;
            assert_eq!((answer.status, answer.header("connection")), (200, "close"), "{path}");
        }
        ask(client().get(format!("{url}/v1/transactions/t")).timeout(SOON)).await.assert_problem(503, "full");
    }
    assert!(!process.log().contains("accepting a connection failed"), "{}", process.log());
    drop(pollers);
    eventually("it serves again", SOON, async || {
        ask(client().get(format!("{url}/v1/transactions/t"))).await.status == 200
    })
    .await;
    let mut stream = poll(&url).await;
    stream.shutdown().await.unwrap();
    assert!(one_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
}
