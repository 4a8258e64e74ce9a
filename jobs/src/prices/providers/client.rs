//! The HTTP client of one provider: rate limit, circuit breaker, retries, and pauses that the provider asks for.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, header, redirect};
use tokio::time::Instant;

use super::{
    ProviderError,
    circuit_breaker::{CircuitBreaker, Permit, Rejected},
    metrics::{ProviderMetrics, RequestOutcome},
    rate_limiter::{RateLimit, RateLimiter},
};
use crate::prices::model::ProviderId;
use queue::retry::Backoff;
use runtime::{
    clients::{retry_after::retry_after, send::send},
    clock::Clock,
    error::{Error, causes},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time-out of one attempt, from the connection to the last byte.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest responses are lists of all pairs or coins: some mebibytes.
const MAX_BODY_BYTES: usize = 8 << 20;
/// The time-out of a call, with its wait for the rate limiter and all its attempts. Each page is one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_ATTEMPTS: u32 = 3;
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(2) };
/// A `Retry-After` up to this is waited for within the call. A longer one is returned to the caller.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(2);
/// A ban lasts at least this long: requests during a ban extend it.
const MIN_BAN: Duration = Duration::from_secs(120);

/// What a response means, as the client of the provider parses it.
#[derive(Debug, PartialEq, Eq)]
pub enum ParsedResponse<T> {
    Value(T),
    NotOffered,
    /// Too many requests, under any status.
    RateLimited(String),
    /// We, or all clients behind our address, are banned.
    Banned(String),
    /// A failure that may pass.
    Transient(String),
    /// No response, or only a part of one, within the time-out. Not retried: the caller has waited long enough.
    TimedOut(String),
    /// The provider rejects this request; retrying does not help.
    Permanent(String),
}

#[cfg(test)]
impl<T> ParsedResponse<T> {
    /// Maps the value, so that a test can compare the rest.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> ParsedResponse<U> {
        match self {
            Self::Value(value) => ParsedResponse::Value(map(value)),
            Self::NotOffered => ParsedResponse::NotOffered,
            Self::RateLimited(reason) => ParsedResponse::RateLimited(reason),
            Self::Banned(reason) => ParsedResponse::Banned(reason),
            Self::Transient(reason) => ParsedResponse::Transient(reason),
            Self::TimedOut(reason) => ParsedResponse::TimedOut(reason),
            Self::Permanent(reason) => ParsedResponse::Permanent(reason),
        }
    }
}

/// The limits and the key of a provider.
pub struct ProviderLimits {
    pub rate_limit: RateLimit,
    /// The pause after a rate limit response without `Retry-After`.
    pub default_pause: Duration,
    /// Our API key, in its header.
    pub key: Option<(header::HeaderName, header::HeaderValue)>,
}

/// The client of one provider. All calls of a process share it.
pub struct ProviderClient {
    pub provider: ProviderId,
    pub clock: Clock,
    http: Client,
    base: String,
    limits: ProviderLimits,
    limiter: RateLimiter,
    breaker: CircuitBreaker,
    pub metrics: ProviderMetrics,
}

/// Creates the HTTP client that all providers share.
///
/// # Errors
/// [`Error::Internal`] when it cannot be built.
pub fn http_client() -> Result<Client, Error> {
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ATTEMPT_TIMEOUT)
        // A redirect could send the key elsewhere, and no provider redirects.
        .redirect(redirect::Policy::none())
        .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Error::Internal(format!("HTTP client: {}", causes(&error))))
}

impl ProviderClient {
    /// Creates the client of a provider at the URL `base`.
    pub fn new(provider: ProviderId, http: Client, base: &str, clock: Clock, limits: ProviderLimits) -> Self {
        let metrics = ProviderMetrics::new(provider);
        let breaker = CircuitBreaker::new(metrics.breaker.clone());
        let limiter = RateLimiter::new(limits.rate_limit);
        Self { provider, clock, http, base: base.to_owned(), limits, limiter, breaker, metrics }
    }

    fn retry_later(&self, Rejected { after, reason }: Rejected) -> ProviderError {
        ProviderError::RetryLater { provider: self.provider, after, reason }
    }

    /// Requests a path with its query. `parse` interprets the response, including errors in its body.
    ///
    /// # Errors
    /// The [`ProviderError`] of the last attempt, or of the rate limiter or circuit breaker before it.
    pub async fn get<T>(
        &self,
        path: &str,
        parse: impl Fn(StatusCode, &str) -> ParsedResponse<T>,
    ) -> Result<T, ProviderError> {
        let timed_out = |_| Err(self.record_failure(format!("no response within {} s", CALL_TIMEOUT.as_secs())));
        tokio::time::timeout(CALL_TIMEOUT, self.get_with_retries(path, parse)).await.unwrap_or_else(timed_out)
    }

    async fn get_with_retries<T>(
        &self,
        path: &str,
        parse: impl Fn(StatusCode, &str) -> ParsedResponse<T>,
    ) -> Result<T, ProviderError> {
        let permit = self.breaker.acquire().map_err(|rejected| self.retry_later(rejected))?;
        let mut attempts = 0;
        loop {
            if let Err(after) = self.limiter.acquire().await {
                return Err(self.retry_later(Rejected { after, reason: "our rate limit is used up".into() }));
            }
            // Another call may have been paused while this one waited for the rate limiter.
            self.breaker.check_pause().map_err(|rejected| self.retry_later(rejected))?;
            let started_at = Instant::now();
            let (response, retry_after) = self.attempt(path, &parse).await;
            attempts += 1;
            self.count(&response, started_at.elapsed());
            let may_retry = attempts < MAX_ATTEMPTS && permit == Permit::Full;
            let wait = match response {
                ParsedResponse::Value(value) => {
                    self.record_response();
                    return Ok(value);
                }
                ParsedResponse::NotOffered => {
                    self.record_response();
                    return Err(ProviderError::NotOffered(self.provider));
                }
                ParsedResponse::Permanent(reason) => {
                    self.record_response();
                    return Err(ProviderError::Failed(self.provider, reason));
                }
                ParsedResponse::Banned(reason) => {
                    return Err(self.pause(retry_after.unwrap_or_default().max(MIN_BAN), reason));
                }
                ParsedResponse::RateLimited(reason) => match retry_after.unwrap_or(self.limits.default_pause) {
                    wait if may_retry && wait <= MAX_RETRY_WAIT => wait,
                    wait => return Err(self.pause(wait, reason)),
                },
                ParsedResponse::Transient(reason) => match retry_after {
                    Some(wait) if wait > MAX_RETRY_WAIT => return Err(self.pause(wait, reason)),
                    wait if may_retry => wait.unwrap_or_default().max(BACKOFF.wait(attempts)),
                    _ => return Err(self.record_failure(reason)),
                },
                ParsedResponse::TimedOut(reason) => return Err(self.record_failure(reason)),
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn count<T>(&self, response: &ParsedResponse<T>, duration: Duration) {
        let outcome = match response {
            ParsedResponse::Value(_) => RequestOutcome::Ok,
            ParsedResponse::NotOffered => RequestOutcome::NotOffered,
            ParsedResponse::RateLimited(_) | ParsedResponse::Banned(_) => RequestOutcome::Limited,
            ParsedResponse::Transient(_) | ParsedResponse::TimedOut(_) | ParsedResponse::Permanent(_) => {
                RequestOutcome::Failed
            }
        };
        self.metrics.record_request(outcome, duration);
    }

    fn record_response(&self) {
        if self.breaker.record_response() {
            tracing::info!(provider = %self.provider, "provider recovered; circuit breaker closed");
        }
    }

    /// Pauses all calls. The provider has responded, so the circuit breaker closes.
    fn pause(&self, after: Duration, reason: String) -> ProviderError {
        self.record_response();
        self.breaker.pause(after, &reason);
        tracing::warn!(provider = %self.provider, retry_after_s = after.as_secs(), reason, "provider paused");
        self.retry_later(Rejected { after, reason })
    }

    fn record_failure(&self, reason: String) -> ProviderError {
        if self.breaker.record_failure() {
            tracing::warn!(provider = %self.provider, reason, "provider keeps failing; circuit breaker opened");
        }
        ProviderError::Failed(self.provider, reason)
    }

    /// Makes one request. Returns the `Retry-After` of the response as well.
    async fn attempt<T>(
        &self,
        path: &str,
        parse: impl Fn(StatusCode, &str) -> ParsedResponse<T>,
    ) -> (ParsedResponse<T>, Option<Duration>) {
        let mut request = self.http.get(format!("{}/{path}", self.base)).header(header::ACCEPT, "application/json");
        if let Some((name, key)) = &self.limits.key {
            request = request.header(name, key);
        }
        let response = match send(request, self.provider.as_str()).await {
            Ok(response) => response,
            Err(error) => return (transport_error(error), None),
        };
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let parsed = match read_body(response).await {
            Ok(body) => classify(status, &body, parse),
            Err(failure) => failure,
        };
        (parsed, retry_after)
    }
}

/// A failed request with all its causes. The URL is removed: it may contain a password.
fn transport_error<T>(error: reqwest::Error) -> ParsedResponse<T> {
    let timed_out = error.is_timeout();
    let reason = causes(&error.without_url());
    if timed_out { ParsedResponse::TimedOut(reason) } else { ParsedResponse::Transient(reason) }
}

/// Reads a body as text, up to [`MAX_BODY_BYTES`].
async fn read_body<T>(mut response: Response) -> Result<String, ParsedResponse<T>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport_error)? {
        if bytes.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(ParsedResponse::Transient(format!("response is longer than {MAX_BODY_BYTES} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    // The error contains a position, and no bytes of the body.
    String::from_utf8(bytes)
        .map_err(|error| ParsedResponse::Transient(format!("response is not text: {}", error.utf8_error())))
}

/// Interprets the statuses that mean the same at every provider. The client of the provider interprets the others.
fn classify<T>(
    status: StatusCode,
    body: &str,
    parse: impl Fn(StatusCode, &str) -> ParsedResponse<T>,
) -> ParsedResponse<T> {
    let reason = || format!("status {}", status.as_u16());
    match status {
        StatusCode::TOO_MANY_REQUESTS => ParsedResponse::RateLimited(reason()),
        // 418 is the ban of Binance. 403 and 451 come from firewalls in front of any provider.
        StatusCode::IM_A_TEAPOT | StatusCode::FORBIDDEN | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
            ParsedResponse::Banned(reason())
        }
        StatusCode::REQUEST_TIMEOUT => ParsedResponse::Transient(reason()),
        status if status.is_server_error() => ParsedResponse::Transient(reason()),
        status if status.is_success() || status.is_client_error() => parse(status, body),
        _ => ParsedResponse::Permanent(reason()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A client of a server behind a URL with a password, with a key.
    fn client(port: u16) -> ProviderClient {
        // Fails when another test has installed the provider of TLS.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = (header::HeaderName::from_static("x-key"), header::HeaderValue::from_static("a-secret-key"));
        let rate_limit = RateLimit { every: Duration::ZERO, burst: 1 };
        let limits = ProviderLimits { rate_limit, default_pause: Duration::ZERO, key: Some(key) };
        let base = format!("http://user:a-secret-password@127.0.0.1:{port}");
        ProviderClient::new(ProviderId::Kraken, http_client().expect("a client"), &base, Clock::system(), limits)
    }

    /// The text of the error of one call.
    async fn error_of(client: &ProviderClient) -> String {
        let failed = client.get::<()>("prices?key=a-secret-query", |_, _| ParsedResponse::NotOffered).await;
        let error = causes(&failed.expect_err("no prices"));
        assert!(!error.contains("secret") && !error.contains("127.0.0.1"), "{error}");
        error
    }

    #[tokio::test]
    async fn a_refused_connection_is_named_without_secrets() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let error = error_of(&client(port)).await;
        assert!(error.contains("Connection refused"), "{error}");
    }

    #[tokio::test]
    async fn a_truncated_body_is_named_without_secrets() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                // A server that closes with an unread request resets the connection.
                let _ = stream.read(&mut [0; 4096]).await.expect("a request");
                let response = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\na-secret-part";
                stream.write_all(response).await.expect("a written response");
            }
        });
        let error = error_of(&client(port)).await;
        // The name of the provider, reqwest's own text, and at least one cause.
        assert!(error.matches(": ").count() >= 2, "{error}");
        server.abort();
    }
}
