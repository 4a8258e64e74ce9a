//! Early responses: a client that sends its whole body before it reads gets the response, not a connection reset.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::harness::{
    http::{connect, read_response},
    system::{System, WEBHOOKS},
};

/// The size in the bug report: more than the kernel buffers for a server that does not read.
const BODY: usize = 828 * 1024;
/// More than all socket buffers between two processes of one machine.
const LARGE: usize = 6 << 20;

#[tokio::test]
async fn early_responses_drain_the_refused_body() {
    let system = System::start(&[]).await;
    for (method, path, headers, status) in [
        ("POST", "/asset", "api_key: wrong\r\n", 403),
        ("POST", "/asset", "", 403),
        ("POST", "/api/v1/items", "", 401),
        ("POST", "/api/v1/items", "Authorization: Bearer x\r\n", 401),
        ("PUT", "/api/v1/items/1", "", 401),
        ("POST", "/nowhere", "", 404),
        ("POST", "/livez", "", 405),
        ("PUT", WEBHOOKS, "", 405),
        ("POST", "/admin/prices/fetch", "x-api-key: wrong\r\n", 403),
        ("DELETE", "/api/v1/items/1", "", 401),
        ("GET", "/nowhere", "", 404),
        ("POST", WEBHOOKS, "Content-Type: text/plain\r\n", 415),
        ("POST", WEBHOOKS, "Host: y\r\n", 400),
    ] {
        for (length, chunked) in [(BODY, false), (LARGE, false), (BODY, true)] {
            let case = format!("{method} {path} {headers:?}, {length} bytes, chunked: {chunked}");
            let framing =
                if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {length}") };
            let head =
                format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}{framing}\r\nConnection: close\r\n\r\n");
            let mut stream = connect(&system.api.url).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            let sending = async {
                // In pieces, as client libraries send it. The response may be under way after the first one.
                for _ in 0..length / 16384 {
                    if chunked {
                        stream.write_all(b"4000\r\n").await?;
                    }
                    stream.write_all(&[b' '; 16384]).await?;
                    if chunked {
                        stream.write_all(b"\r\n").await?;
                    }
                }
                stream.write_all(if chunked { b"0\r\n\r\n" } else { &[b' '; 16384][..length % 16384] }).await
            };
            let sent =
                tokio::time::timeout(Duration::from_secs(20), sending).await.expect("the body is read within 20 s");
            assert!(sent.is_ok(), "{case}: {sent:?}");
            // A route with an operation checks the declared size first.
            let too_large = length == LARGE && matches!(status, 401 | 403 | 415);
            read_response(stream).await.assert_problem(if too_large { 413 } else { status }, &case);
        }
    }
}
