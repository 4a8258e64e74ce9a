//! More connections than a process may hold: it serves as many as it can, and its health checks keep working.

use std::process::Command;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{SOON, read_one_response};
use crate::harness::{
    database, eventually,
    http::{HttpResponse, connect, read_response, send, send_until},
    process::{Process, http_client},
    system::{WEBHOOKS, webhook},
};

/// Starts an API process under these limits of open files. Returns its URL too.
async fn start_with_limit(database: &str, ulimit: &str) -> (Process, String) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{ulimit}; exec \"$0\" api"), env!("CARGO_BIN_EXE_millrace")]).current_dir("/");
    let variables =
        [("DATABASE_URL", database), ("PORT", "0"), ("LOG_FORMAT", "json"), ("PROCESSING_DELAY_SECONDS", "3600")];
    let mut process = Process::run("api", command, &variables);
    let line: serde_json::Value = serde_json::from_str(&process.wait_for_line(r#""event":"listening""#).await).unwrap();
    (process, format!("http://{}", line["address"].as_str().expect("an address")))
}

async fn start_long_poll(url: &str) -> TcpStream {
    let mut stream = connect(url).await;
    stream.write_all(b"GET /v1/transactions/t?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    stream
}

/// The response to a health check. Readiness depends on the database too, which may be late on a busy machine: then it
/// is checked again.
async fn check_health(url: &str, path: &str) -> HttpResponse {
    // The refusal of a full process has another text.
    let is_late = |response: &HttpResponse| response.status == 503 && response.text.contains("not ready: ");
    let request = http_client().get(format!("{url}{path}")).timeout(SOON);
    send_until(request, |response| path != "/readyz" || !is_late(response)).await
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised() {
    let database = database::fresh().await;
    let (mut process, url) = start_with_limit(&database.url, "ulimit -Sn 256").await;
    let line: serde_json::Value = serde_json::from_str(&process.wait_for_line("limit of open files").await).unwrap();
    let (before, now) = (line["before"].as_u64().unwrap(), line["now"].as_u64().unwrap());
    assert!(before == 256 && now >= 1024, "{line}");
    let sent = send(http_client().post(format!("{url}{WEBHOOKS}")).json(&webhook("t"))).await;
    assert_eq!(sent.status, 202);
    let mut pollers = Vec::new();
    for _ in 0..400 {
        pollers.push(start_long_poll(&url).await);
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(check_health(&url, path).await.status, 200, "{path}");
    }
    drop(pollers);
}

#[tokio::test]
async fn health_checks_work_at_the_hard_limit_of_connections() {
    let database = database::fresh().await;
    let (process, url) = start_with_limit(&database.url, "ulimit -n 320").await;
    let sent = send(http_client().post(format!("{url}{WEBHOOKS}")).json(&webhook("t"))).await;
    assert_eq!(sent.status, 202);
    let mut pollers = Vec::new();
    for _ in 0..300 {
        pollers.push(start_long_poll(&url).await);
    }
    // Beyond 128 connections the API refuses with a problem and a `Retry-After`.
    let refused = read_response(pollers.pop().unwrap()).await;
    refused.assert_problem(503, "beyond the limit of connections");
    assert_eq!((refused.header("retry-after"), refused.header("connection")), ("1", "close"), "{refused:?}");
    for _ in 0..20 {
        for path in ["/livez", "/readyz", "/metrics", "/api/v1/health"] {
            let response = check_health(&url, path).await;
            assert_eq!((response.status, response.header("connection")), (200, "close"), "{path}");
        }
        send(http_client().get(format!("{url}/v1/transactions/t")).timeout(SOON)).await.assert_problem(503, "full");
    }
    assert!(!process.log().contains("accepting a connection failed"), "{}", process.log());
    drop(pollers);
    eventually("the API serves requests again", SOON, async || {
        send(http_client().get(format!("{url}/v1/transactions/t"))).await.status == 200
    })
    .await;
    // The connection of the request above may have been the first one that was free, and may not have ended yet.
    eventually("a half-closed long poll gets its response", SOON, async || {
        let mut stream = start_long_poll(&url).await;
        stream.shutdown().await.unwrap();
        read_one_response(&mut stream).await.starts_with("HTTP/1.1 200")
    })
    .await;
}
