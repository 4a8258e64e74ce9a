//! HTTP client of the span exporter. If the collector is down or hangs, spans are lost and a warning is logged each minute.

use std::{
    fmt,
    pin::Pin,
    sync::Mutex,
    time::{Duration, Instant},
};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::Client;
use tokio::runtime::Handle;
use url::Url;

use crate::{clients::http, error::causes, mutex::lock};

/// The time limit for one batch of spans.
const BATCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The minimal time between two warnings.
const WARN_INTERVAL: Duration = Duration::from_secs(60);
/// The maximal size of a response in bytes; collectors send a few bytes. A longer body is discarded.
const MAX_RESPONSE_SIZE: usize = 64 * 1024;

/// A client that sends its requests on tokio's threads, while the exporter waits in its own thread.
pub(super) struct ExportClient {
    client: Client,
    runtime: Handle,
    /// Host and port for log lines, without a password.
    collector: String,
    last_warning: Mutex<Option<Instant>>,
}

impl ExportClient {
    /// Creates a client for a collector. Must be called inside the tokio runtime that will run its requests.
    ///
    /// # Errors
    /// When it is called outside a runtime, or the client cannot be built.
    pub(super) fn start(endpoint: &Url) -> Result<Self, String> {
        let client = http::client(|limits| limits.timeout(BATCH_TIMEOUT)).map_err(|error| error.to_string())?;
        let runtime = Handle::try_current().map_err(|error| error.to_string())?;
        let port = endpoint.port_or_known_default().unwrap_or_default();
        let collector = format!("{}:{port}", endpoint.host_str().unwrap_or_default());
        Ok(Self { client, runtime, collector, last_warning: Mutex::default() })
    }

    fn warn(&self, problem: &str) {
        let mut last_warning = lock(&self.last_warning);
        if last_warning.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            *last_warning = Some(Instant::now());
            tracing::warn!(collector = self.collector, problem, "traces are lost: the collector does not accept them");
        }
    }
}

impl fmt::Debug for ExportClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExportClient({})", self.collector)
    }
}

async fn send(client: Client, request: Request<Bytes>) -> Result<Response<Bytes>, reqwest::Error> {
    let mut received = client.execute(request.try_into()?).await?;
    let mut body = Vec::new();
    while let Some(chunk) = received.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_RESPONSE_SIZE {
            body.clear();
            break;
        }
    }
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = received.status();
    *response.headers_mut() = std::mem::take(received.headers_mut());
    Ok(response)
}

impl HttpClient for ExportClient {
    fn send_bytes<'a, 'response>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'response>>
    where
        'a: 'response,
        Self: 'response,
    {
        Box::pin(async move {
            let result = self.runtime.spawn(send(self.client.clone(), request)).await;
            // The URL is omitted, since it may contain a password.
            let problem = match result {
                Ok(Ok(response)) => {
                    if !response.status().is_success() {
                        self.warn(&format!("the response is {}", response.status()));
                    }
                    return Ok(response);
                }
                Ok(Err(error)) if error.is_timeout() => "no response within the time limit".to_owned(),
                Ok(Err(error)) => causes(&error.without_url()),
                Err(stopped) => stopped.to_string(),
            };
            self.warn(&problem);
            Err(problem.into())
        })
    }
}
