//! HTTP transport to one Elasticsearch server: time-outs, credentials, and the errors of responses.

use std::time::Duration;

use reqwest::{Client, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::items::search::config::Server;
use runtime::{
    clients::{http, send::send},
    error::{Error, causes},
};

/// The limit of one request. A search that takes longer falls back to PostgreSQL.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The limit of a bulk request, which takes longer.
const BULK_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The server's reason is cut to this number of characters in errors.
pub(super) const MAX_REASON: usize = 300;

/// An HTTP client of one server.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    client: Client,
    server: Server,
}

/// A response.
#[derive(Debug)]
pub(super) struct Response {
    pub status: StatusCode,
    /// `Null` if the body is not JSON.
    pub body: Value,
}

impl Transport {
    pub(super) fn new(server: &Server) -> Result<Self, Error> {
        Ok(Self { client: http::client(|client| client.connect_timeout(CONNECT_TIMEOUT))?, server: server.clone() })
    }

    /// Sends a request with JSON as its body, or without a body.
    pub(super) async fn send_json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, Error> {
        let body = body.map(|body| ("application/json", body.to_string()));
        self.send(method, path, body, TIMEOUT).await
    }

    /// Sends a bulk request of JSON lines.
    pub(super) async fn send_lines(&self, path: &str, lines: String) -> Result<Response, Error> {
        self.send(Method::POST, path, Some(("application/x-ndjson", lines)), BULK_TIMEOUT).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
        timeout: Duration,
    ) -> Result<Response, Error> {
        let url = self.server.url.join(path).map_err(|error| Error::Internal(format!("Elasticsearch: {error}")))?;
        let mut request = self.client.request(method, url).timeout(timeout).header(header::ACCEPT, "application/json");
        if let Some((user, password)) = &self.server.credentials {
            request = request.basic_auth(user, Some(password));
        }
        if let Some((content_type, body)) = body {
            request = request.header(header::CONTENT_TYPE, content_type).body(body);
        }
        let unreachable = |error: reqwest::Error| {
            let reason = if error.is_timeout() { "timed out".into() } else { causes(&error.without_url()) };
            Error::Unavailable(format!("Elasticsearch: {reason}"))
        };
        let response = send(request, "elasticsearch").await.map_err(unreachable)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(unreachable)?;
        Ok(Response { status, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }
}

impl Response {
    /// Elasticsearch's error type, or an empty text.
    pub(super) fn error_type(&self) -> &str {
        self.body["error"]["type"].as_str().unwrap_or_default()
    }

    /// Parses the body as a `T`. Errors name the `operation`, a verb and its object.
    pub(super) fn parse<T: DeserializeOwned>(self, operation: &str) -> Result<T, Error> {
        if !self.status.is_success() {
            return Err(self.to_error(operation));
        }
        let malformed =
            |error| Error::Unavailable(format!("Elasticsearch: could not {operation}: malformed response: {error}"));
        T::deserialize(self.body).map_err(malformed)
    }

    /// The error of an unsuccessful response.
    pub(super) fn to_error(&self, operation: &str) -> Error {
        let (kind, reason) = self.cause();
        let reason: String = reason.chars().take(MAX_REASON).collect();
        let text = format!("Elasticsearch: could not {operation}: {} {kind} {reason}", self.status);
        if is_permanent(self.status.as_u16(), kind) { Error::Internal(text) } else { Error::Unavailable(text) }
    }

    /// The type and the reason of the first cause. The error of a search itself says only `all shards failed`.
    fn cause(&self) -> (&str, &str) {
        let error = &self.body["error"];
        // Some errors are a plain text.
        if let Some(text) = error.as_str() {
            return ("", text);
        }
        let cause = if error["root_cause"][0].is_null() { error } else { &error["root_cause"][0] };
        (cause["type"].as_str().unwrap_or_default(), cause["reason"].as_str().unwrap_or_default())
    }
}

/// Whether a request or a write can never succeed. 400 and similar statuses are programming errors.
///
/// All others may be temporary, also a wrong index or password, or an index that is closed or read-only: an operator can
/// correct these while this process runs.
pub(super) fn is_permanent(status: u16, kind: &str) -> bool {
    matches!(status, 400 | 405 | 406 | 415) && kind != "index_closed_exception"
}
