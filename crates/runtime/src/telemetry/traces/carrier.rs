//! Takes finished spans to the collector. One that is down or hangs costs spans, and a warning now and then.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::{Client, redirect};
use tokio::runtime::Handle;
use url::Url;

/// For one batch.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Answers are a few bytes; more of one is not read.
const LONGEST_ANSWER: usize = 64 * 1024;

/// A client whose requests run on tokio's threads, while the exporter waits on one of its own.
pub struct Carrier {
    client: Client,
    runtime: Handle,
    /// For people: without a password.
    collector: String,
    warned: Mutex<Option<Instant>>,
}

impl Carrier {
    /// A client for this collector; inside the runtime that it is to use.
    ///
    /// # Errors
    /// When there is no runtime, or no client to be built.
    pub fn start(endpoint: &Url) -> Result<Self, String> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            // A redirected export would show its headers, which hold keys, to somebody else.
            .redirect(redirect::Policy::none())
            .user_agent("millrace")
            .build()
            .map_err(|error| format!("HTTP client: {error}"))?;
        let runtime = Handle::try_current().map_err(|error| error.to_string())?;
        let port = endpoint.port_or_known_default().unwrap_or_default();
        let collector = format!("{}:{port}", endpoint.host_str().unwrap_or_default());
        Ok(Self { client, runtime, collector, warned: Mutex::default() })
    }

    fn warn(&self, problem: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(collector = self.collector, problem, "traces are lost: the collector does not take them");
        }
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carrier({})", self.collector)
    }
}

async fn carry(client: Client, request: Request<Bytes>) -> Result<Response<Bytes>, reqwest::Error> {
    let mut answer = client.execute(request.try_into()?).await?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_ANSWER {
            body.clear();
            break;
        }
    }
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}

impl HttpClient for Carrier {
    fn send_bytes<'a, 'answer>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'answer>>
    where
        'a: 'answer,
        Self: 'answer,
    {
        Box::pin(async move {
            let carried = self.runtime.spawn(carry(self.client.clone(), request)).await;
            // Without the URL, which may hold a password.
            let problem = match carried {
                Ok(Ok(response)) => {
                    if !response.status().is_success() {
                        self.warn(&format!("it answers {}", response.status()));
                    }
                    return Ok(response);
                }
                Ok(Err(error)) if error.is_timeout() => "no answer in time".to_owned(),
                Ok(Err(error)) => error.without_url().to_string(),
                Err(stopped) => stopped.to_string(),
            };
            self.warn(&problem);
            Err(problem.into())
        })
    }
}
