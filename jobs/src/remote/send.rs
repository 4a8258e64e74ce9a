//! One way out: a request with its span.

use reqwest::{RequestBuilder, Response, header::HeaderValue};

use crate::boot::telemetry::traces::span::{self, Span};

/// W3C Trace Context.
pub const TRACEPARENT: &str = "traceparent";

/// Sends a request to `peer`, which is what a trace calls it. The span lasts until the head of the answer is there.
///
/// # Errors
/// Those of [`RequestBuilder::send`].
pub async fn send(request: RequestBuilder, peer: &'static str) -> reqwest::Result<Response> {
    if span::in_trace() { traced(request, peer, false).await } else { request.send().await }
}

/// As [`send`], to a service that goes on with our trace: its `traceparent` says so. Without a trace, the one that the
/// request has stands.
///
/// # Errors
/// Those of [`RequestBuilder::send`].
pub async fn send_on(request: RequestBuilder, peer: &'static str) -> reqwest::Result<Response> {
    if span::in_trace() { traced(request, peer, true).await } else { request.send().await }
}

async fn traced(request: RequestBuilder, peer: &'static str, propagate: bool) -> reqwest::Result<Response> {
    let (client, request) = request.build_split();
    let mut request = request?;
    let url = request.url();
    // No more of the URL: paths and queries of nodes and providers hold keys.
    let span =
        Span::client(request.method().as_str(), url.host_str().unwrap_or_default(), url.port_or_known_default(), peer);
    if propagate && let Some(value) = span.traceparent().and_then(|text| HeaderValue::from_str(&text).ok()) {
        request.headers_mut().insert(TRACEPARENT, value);
    }
    let answered = span.around(client.execute(request)).await;
    match &answered {
        Ok(response) => span.answered(response.status().as_u16(), 400),
        Err(error) if error.is_timeout() => span.failed("timeout"),
        Err(error) if error.is_connect() => span.failed("connect"),
        Err(_) => span.failed("request"),
    }
    answered
}
