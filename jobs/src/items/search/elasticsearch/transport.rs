//! HTTP to one server: time-outs, credentials, and what an answer means.

use std::time::Duration;

use reqwest::{Client, Method, StatusCode, header, redirect};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{error::Error, items::search::config::Server, remote::send::send};

/// A search that takes longer is answered by PostgreSQL.
const LIMIT: Duration = Duration::from_secs(2);
/// A page of documents may take longer.
const BULK_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// So much of a server's own words goes into our log.
const LONGEST_REASON: usize = 300;

/// The way to a server.
#[derive(Debug, Clone)]
pub struct Transport {
    client: Client,
    server: Server,
}

/// What it answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// Null when it was not JSON.
    pub body: Value,
}

impl Transport {
    pub fn new(server: &Server) -> Result<Self, Error> {
        let client = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            // Credentials go where they were meant to go, and a write is not repeated elsewhere.
            .redirect(redirect::Policy::none())
            .user_agent("millrace")
            .build()
            .map_err(|error| Error::Internal(format!("HTTP client: {error}")))?;
        Ok(Self { client, server: server.clone() })
    }

    /// Sends JSON, or nothing.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Error> {
        let body = body.map(|body| ("application/json", body.to_string()));
        self.send(method, path, body, LIMIT).await
    }

    /// Sends lines of JSON.
    pub async fn ask_lines(&self, path: &str, lines: String) -> Result<Answer, Error> {
        self.send(Method::POST, path, Some(("application/x-ndjson", lines)), BULK_LIMIT).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
        limit: Duration,
    ) -> Result<Answer, Error> {
        let url = self.server.url.join(path).map_err(|error| Error::Internal(format!("Elasticsearch: {error}")))?;
        let mut request = self.client.request(method, url).timeout(limit).header(header::ACCEPT, "application/json");
        if let Some((user, password)) = &self.server.credentials {
            request = request.basic_auth(user, Some(password));
        }
        if let Some((content_type, body)) = body {
            request = request.header(header::CONTENT_TYPE, content_type).body(body);
        }
        let unreachable = |error: reqwest::Error| {
            let why = if error.is_timeout() { "no answer in time".into() } else { error.without_url().to_string() };
            Error::Unavailable(format!("Elasticsearch: {why}"))
        };
        let response = send(request, "elasticsearch").await.map_err(unreachable)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(unreachable)?;
        Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }
}

impl Answer {
    /// Elasticsearch's name of the error.
    pub fn kind(&self) -> &str {
        self.body["error"]["type"].as_str().unwrap_or_default()
    }

    /// The answer as a `T`.
    pub fn read<T: DeserializeOwned>(self, what: &str) -> Result<T, Error> {
        if !self.status.is_success() {
            return Err(self.error(what));
        }
        let malformed = |error| Error::Unavailable(format!("Elasticsearch: {what}: not understood: {error}"));
        T::deserialize(self.body).map_err(malformed)
    }

    /// Why it did not do what it was asked: 400 and the like are our mistake, everything else may pass.
    pub fn error(&self, what: &str) -> Error {
        let reason: String =
            self.body["error"]["reason"].as_str().unwrap_or_default().chars().take(LONGEST_REASON).collect();
        let text = format!("Elasticsearch: {what}: {} {} {reason}", self.status, self.kind());
        match self.status {
            StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE => Error::Internal(text),
            // Not the index or the password that we expect: an operator can change that while we run.
            _ => Error::Unavailable(text),
        }
    }
}
