//! Sends HTTP requests inside a trace span.

use reqwest::{RequestBuilder, Response, header::HeaderValue};

use crate::telemetry::traces::span::{self, Span};

/// W3C Trace Context.
pub const TRACEPARENT: &str = "traceparent";

/// Sends a request. `peer` is the name of the server in traces. The span ends when the response headers have arrived.
///
/// # Errors
/// Those of [`RequestBuilder::send`].
pub async fn send(request: RequestBuilder, peer: &'static str) -> reqwest::Result<Response> {
    if span::is_traced() { traced(request, peer, false).await } else { request.send().await }
}

/// Like [`send`], and passes our trace on in the `traceparent` header. Outside a trace, a header that the request
/// already has stays.
///
/// # Errors
/// Those of [`RequestBuilder::send`].
pub async fn send_with_traceparent(request: RequestBuilder, peer: &'static str) -> reqwest::Result<Response> {
    if span::is_traced() { traced(request, peer, true).await } else { request.send().await }
}

async fn traced(request: RequestBuilder, peer: &'static str, propagate: bool) -> reqwest::Result<Response> {
    let (client, request) = request.build_split();
    let mut request = request?;
    let url = request.url();
    // Only host and port: the paths and queries of nodes and providers contain keys.
    let span =
        Span::client(request.method().as_str(), url.host_str().unwrap_or_default(), url.port_or_known_default(), peer);
    if propagate && let Some(value) = span.traceparent().and_then(|text| HeaderValue::from_str(&text).ok()) {
        request.headers_mut().insert(TRACEPARENT, value);
    }
    let response = span.attach_to(client.execute(request)).await;
    match &response {
        Ok(response) => span.record_status(response.status().as_u16(), 400),
        Err(error) if error.is_timeout() => span.record_error("timeout"),
        Err(error) if error.is_connect() => span.record_error("connect"),
        Err(_) => span.record_error("request"),
    }
    response
}
