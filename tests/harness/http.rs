//! Complete HTTP responses, and raw requests that no client library would send.

use std::time::{Duration, Instant};

use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The limit and the pause of [`send_until`].
const TRIES: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct HttpResponse {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl HttpResponse {
    /// The value of a header; empty if the header is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII")).unwrap_or_default()
    }

    /// The body as JSON; null if it is not JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// `type`, `loc` and `msg` of every invalid field in a 422 response.
    pub(crate) fn validation_errors(&self) -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let errors = self.json()["detail"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| (text(&error["type"]), text(&error["loc"]), text(&error["msg"]))).collect()
    }

    /// Asserts that this is a problem document with this status, and returns it.
    pub(crate) fn assert_problem(&self, status: u16, case: &str) -> Value {
        assert_eq!(self.status, status, "{case}: {self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{case}: {self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{case}: {problem}");
        for text in ["type", "title", "correlation_id"] {
            assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{case}: {text}: {problem}");
        }
        assert!(!problem["detail"].is_null(), "{case}: {problem}");
        assert_eq!(problem["correlation_id"], self.header("x-correlation-id"), "{case}: {problem}");
        problem
    }
}

/// Sends a request and reads the complete response.
pub(crate) async fn send(request: RequestBuilder) -> HttpResponse {
    let response = request.send().await.expect("a response");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    HttpResponse { status, headers, text: response.text().await.expect("a complete response") }
}

/// Sends a request again until its response is final: a busy machine may be too slow for a time limit of the product.
/// Returns the last response.
pub(crate) async fn send_until(request: RequestBuilder, is_final: impl Fn(&HttpResponse) -> bool) -> HttpResponse {
    let begun = Instant::now();
    loop {
        let response = send(request.try_clone().expect("a request without a stream")).await;
        if is_final(&response) || begun.elapsed() > TRIES {
            return response;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Opens a connection to `http://HOST:PORT`.
pub(crate) async fn connect(url: &str) -> TcpStream {
    let address = url.strip_prefix("http://").expect("http");
    TcpStream::connect(address).await.expect("a connection")
}

/// Sends these bytes unchanged and reads until the server closes. They should contain `Connection: close`.
pub(crate) async fn send_raw(url: &str, request: &[u8]) -> HttpResponse {
    let mut stream = connect(url).await;
    // The server may reject the request and close before it has read all of it.
    let _ = stream.write_all(request).await;
    read_response(stream).await
}

/// Reads a response until the server closes.
pub(crate) async fn read_response(mut stream: TcpStream) -> HttpResponse {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    HttpResponse {
        status: status.unwrap_or_else(|| panic!("not an HTTP response: {text:?}")),
        headers: headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect(),
        text: body.to_owned(),
    }
}
