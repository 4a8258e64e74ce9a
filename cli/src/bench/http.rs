//! A minimal HTTP client on one connection, for single requests whose duration is measured.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::load::read_message;

/// A response.
pub(super) struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
    /// From the first byte of the request to the last one of the response.
    pub time: Duration,
}

/// A connection to a server, and the headers of all requests.
pub(super) struct Connection {
    stream: TcpStream,
    /// Each with its line end.
    headers: String,
}

impl Connection {
    /// Connects without further headers.
    ///
    /// # Errors
    /// When the server does not accept the connection.
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, headers: String::new() })
    }

    /// Sends this header with all later requests.
    pub(super) fn add_header(&mut self, name: &str, value: &str) {
        self.headers += &format!("{name}: {value}\r\n");
    }

    /// Gets a path.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) async fn get(&mut self, path: &str) -> Result<Response> {
        let headers = &self.headers;
        self.send(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n")).await
    }

    /// Posts a body of this type.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) async fn post(&mut self, path: &str, content_type: &str, body: &str) -> Result<Response> {
        let (headers, length) = (&self.headers, body.len());
        self.send(format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\n{headers}Content-Type: {content_type}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    async fn send(&mut self, request: String) -> Result<Response> {
        let begun = Instant::now();
        self.stream.write_all(request.as_bytes()).await?;
        let mut input = Vec::new();
        let end = read_message(&mut self.stream, &mut input).await?.context("the server closed the connection")?;
        let time = begun.elapsed();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // The head ends with an empty line.
        let (head, body) = (text(&input[..end - 4]), text(&input[end..]));
        let status = head.get(9..12).and_then(|status| status.parse().ok()).context("a response without a status")?;
        Ok(Response { status, head, body, time })
    }
}

impl Response {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then(|| value.trim()))
    }
}
