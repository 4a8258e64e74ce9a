//! Malformed request heads: each gets a problem response, whose correlation id is in the log.

use super::SOON;
use crate::harness::{eventually, http::send_raw, system::System};

#[tokio::test]
async fn malformed_heads_get_a_problem_and_a_log_line() {
    let system = System::start(&[]).await;
    let get = |headers: &str| format!("GET /livez HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    let chunked = |coding: &str| {
        format!("POST /v1/webhooks/transactions HTTP/1.1\r\nHost: x\r\n{coding}Connection: close\r\n\r\n0\r\n\r\n")
    };
    let large = "x".repeat(200 * 1024);
    for (case, request, status) in [
        ("no Host", get(""), 400),
        ("two Hosts", get("Host: x\r\nHost: y\r\n"), 400),
        ("the same Host twice", get("Host: x\r\nHost: x\r\n"), 400),
        ("an empty Host", get("Host:\r\n"), 400),
        ("a Host with a space", get("Host: a b\r\n"), 400),
        ("a Host with a path", get("Host: x/y\r\n"), 400),
        ("a Host with a user", get("Host: u@x\r\n"), 400),
        ("a Host with a wrong port", get("Host: x:port\r\n"), 400),
        ("a Host with a non-ASCII letter", get("Host: é\r\n"), 400),
        ("no Host, and an absolute target", "GET http://x/livez HTTP/1.1\r\nConnection: close\r\n\r\n".into(), 400),
        ("no Host, and an unknown path", "GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n".into(), 400),
        ("foo, chunked", chunked("Transfer-Encoding: foo, chunked\r\n"), 400),
        ("identity and chunked", chunked("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"), 400),
        ("chunked twice", chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400),
        ("gzip, chunked", chunked("Transfer-Encoding: gzip, chunked\r\n"), 400),
        ("chunked, gzip", chunked("Transfer-Encoding: chunked, gzip\r\n"), 400),
        ("identity", chunked("Transfer-Encoding: identity\r\n"), 400),
        ("no HTTP", "nonsense\r\n\r\n".into(), 400),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{7c}\u{3}\u{3}\r\n\r\n".into(), 400),
        ("a space before a colon", get("Host : x\r\n"), 400),
        ("a folded line", get("Host: x\r\nX: a\r\n b\r\n"), 400),
        ("no name", get("Host: x\r\n: a\r\n"), 400),
        ("a NUL", get("Host: x\r\nX: a\0b\r\n"), 400),
        ("a signed length", get("Host: x\r\nContent-Length: +5\r\n"), 400),
        ("two lengths", get("Host: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n"), 400),
        ("chunked in HTTP/1.0", "GET / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".into(), 400),
        ("another version", "GET / HTTP/9.9\r\nHost: x\r\n\r\n".into(), 400),
        ("101 headers", get(&("Host: x\r\n".to_owned() + &"X: x\r\n".repeat(101))), 431),
        ("a large header", get(&format!("Host: x\r\nX: {large}\r\n")), 431),
        ("one over 64 KiB", get(&format!("Host: x\r\nX: {}\r\n", "x".repeat(64 * 1024))), 431),
        ("a long target", format!("GET /{large} HTTP/1.1\r\nHost: x\r\n\r\n"), 431),
    ] {
        let response = send_raw(&system.api.url, request.as_bytes()).await;
        response.assert_problem(status, case);
        assert_eq!(response.header("connection"), "close", "{case}: {response:?}");
        assert_eq!(response.header("content-length"), response.text.len().to_string(), "{case}: {response:?}");
        let id = response.header("x-correlation-id").to_owned();
        eventually(&format!("{case} is in the log"), SOON, async || {
            let log = system.api.process.log();
            let mut lines = log.lines().filter(|line| line.contains(&id) && line.contains("COMPLETED_REQUEST"));
            lines.any(|line| line.contains(&format!("\"status_code\":{status}")))
        })
        .await;
    }
    for (case, request) in [
        ("with a port", get("Host: example.com:8000\r\n")),
        ("IPv6", get("Host: [::1]:8000\r\n")),
        ("an underscore", get("Host: my_service\r\n")),
        ("HTTP/1.0", "GET /livez HTTP/1.0\r\n\r\n".to_owned()),
        ("an absolute target", "GET http://x/livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into()),
    ] {
        assert_eq!(send_raw(&system.api.url, request.as_bytes()).await.status, 200, "{case}");
    }
    assert_eq!(system.count_transactions().await, 0);
}
