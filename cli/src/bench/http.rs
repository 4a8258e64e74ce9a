//! A minimal HTTP client on one connection, for single requests whose duration is measured.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

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

    /// Posts a form.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) async fn post(&mut self, path: &str, form: &str) -> Result<Response> {
        self.post_as("application/x-www-form-urlencoded", path, form).await
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) async fn post_json(&mut self, path: &str, json: &str) -> Result<Response> {
        self.post_as("application/json", path, json).await
    }

    async fn post_as(&mut self, content_type: &str, path: &str, body: &str) -> Result<Response> {
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
        loop {
            if self.stream.read_buf(&mut input).await? == 0 {
                bail!("the server closed the connection");
            }
            let Some(end) = input.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&input[..end]).into_owned();
            let length = header(&head, "content-length").and_then(|length| length.parse::<usize>().ok());
            if input.len() < end + 4 + length.context("a response without Content-Length")? {
                continue;
            }
            let status =
                head.get(9..12).and_then(|status| status.parse().ok()).context("a response without a status")?;
            let body = String::from_utf8_lossy(&input[end + 4..]).into_owned();
            return Ok(Response { status, head, body, time: begun.elapsed() });
        }
    }
}

impl Response {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then(|| value.trim()))
}
