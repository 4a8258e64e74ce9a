//! The HTTP edge: connections, framing and headers of every route, with requests that no client library would send.

mod caching;
mod connection_limit;
mod drain;
mod early_responses;
mod framing;
mod half_close;

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    http::connect,
    system::{System, WEBHOOKS, webhook},
};

/// The deadline of what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(15);

impl System {
    async fn count_transactions(&self) -> i64 {
        self.count("SELECT count(*) FROM transactions").await
    }

    /// Opens a connection and sends these bytes.
    async fn send_bytes(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = connect(&self.api.url).await;
        stream.write_all(bytes).await.expect("sent");
        stream
    }
}

/// The bytes of a request that posts this webhook.
fn raw_webhook(id: &str) -> String {
    let body = webhook(id).to_string();
    format!("POST {WEBHOOKS} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Reads one response from a connection that stays open: the head, and a body of its `content-length`.
async fn read_one_response(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        let mut more = [0; 4096];
        let length = stream.read(&mut more).await.expect("a response");
        assert!(length > 0, "closed within a response: {text:?}");
        bytes.extend(&more[..length]);
    }
}
