//! The HTTP client of one provider: rate limit, circuit breaker, retries, and pauses that it asks for.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, header};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{
    metrics::ProviderMetrics,
    pause::Pause,
    provider::ProviderError,
    rate_limiter::{RateLimit, RateLimiter},
};
use crate::prices::model::{BodyHash, ProviderId};
use queue::retry::Backoff;
use runtime::{
    clients::{
        breaker::{Breaker, Permit},
        http,
        retry_after::retry_after,
        send::send,
    },
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
/// Failed calls in a row, each with all its attempts, that open the circuit breaker.
const FAILURES: u32 = 3;
/// How often one call, with one attempt, probes the provider then. Longer than the longest call.
const PROBE_PAUSE: Duration = Duration::from_secs(30);

/// Why one attempt returned no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AttemptError {
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

/// What an attempt returns.
pub(super) type Parsed<T> = Result<T, AttemptError>;

/// A value, and the hash of the response body that it was parsed from.
pub(super) type Hashed<T> = (T, BodyHash);

impl AttemptError {
    /// The name, as metrics contain it.
    fn outcome(&self) -> &'static str {
        match self {
            Self::NotOffered => "not_offered",
            Self::RateLimited(_) | Self::Banned(_) => "limited",
            Self::Transient(_) | Self::TimedOut(_) | Self::Permanent(_) => "failed",
        }
    }

    /// A failed request with all its causes. The URL is removed: it may contain a password.
    fn transport(error: reqwest::Error) -> Self {
        let timed_out = error.is_timeout();
        let reason = causes(&error.without_url());
        if timed_out { Self::TimedOut(reason) } else { Self::Transient(reason) }
    }
}

/// Fails for an error status whose body has no meaning.
pub(super) fn check_status(status: StatusCode) -> Parsed<()> {
    if status.is_success() { Ok(()) } else { Err(AttemptError::Permanent(format!("status {}", status.as_u16()))) }
}

/// The limits and the key of a provider.
pub(super) struct ProviderLimits {
    pub rate_limit: RateLimit,
    /// The pause after a rate limit response without `Retry-After`.
    pub default_pause: Duration,
    /// Our API key, in its header.
    pub key: Option<(header::HeaderName, header::HeaderValue)>,
}

/// The client of one provider. All calls of a process share it.
pub(super) struct ProviderClient {
    pub provider: ProviderId,
    pub clock: Clock,
    http: Client,
    base: String,
    limits: ProviderLimits,
    limiter: RateLimiter,
    breaker: Breaker,
    pause: Pause,
    pub metrics: ProviderMetrics,
}

/// Creates the HTTP client that all providers share.
///
/// # Errors
/// [`Error::Internal`] when it cannot be built.
pub(super) fn http_client() -> Result<Client, Error> {
    http::client(|limits| limits.connect_timeout(CONNECT_TIMEOUT).timeout(ATTEMPT_TIMEOUT))
}

impl ProviderClient {
    /// Creates the client of a provider at the URL `base`.
    pub(super) fn new(provider: ProviderId, http: Client, base: &str, clock: Clock, limits: ProviderLimits) -> Self {
        let (limiter, breaker) = (RateLimiter::new(limits.rate_limit), Breaker::with_threshold(FAILURES, PROBE_PAUSE));
        let (pause, metrics) = (Pause::default(), ProviderMetrics::new(provider));
        Self { provider, clock, http, base: base.to_owned(), limits, limiter, breaker, pause, metrics }
    }

    fn retry_later(&self, after: Duration, reason: impl Into<String>) -> ProviderError {
        ProviderError::RetryLater { provider: self.provider, after, reason: reason.into() }
    }

    /// Requests a path with its query. `parse` interprets the response, including errors in its body.
    ///
    /// # Errors
    /// The [`ProviderError`] of the last attempt, or of the rate limiter, pause or circuit breaker before it.
    pub(super) async fn get<T>(
        &self,
        path: &str,
        parse: impl Fn(StatusCode, &str) -> Parsed<T>,
    ) -> Result<T, ProviderError> {
        self.get_hashed(path, parse).await.map(|(value, _)| value)
    }

    /// Requests a path like [`Self::get`]. Returns the hash of the response body as well.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub(super) async fn get_hashed<T>(
        &self,
        path: &str,
        parse: impl Fn(StatusCode, &str) -> Parsed<T>,
    ) -> Result<Hashed<T>, ProviderError> {
        let timed_out = |_| Err(self.record_failure(format!("no response within {} s", CALL_TIMEOUT.as_secs())));
        tokio::time::timeout(CALL_TIMEOUT, self.get_with_retries(path, parse)).await.unwrap_or_else(timed_out)
    }

    async fn get_with_retries<T>(
        &self,
        path: &str,
        parse: impl Fn(StatusCode, &str) -> Parsed<T>,
    ) -> Result<Hashed<T>, ProviderError> {
        self.check_pause()?;
        let permit = self.breaker.acquire().map_err(|after| self.retry_later(after, "it keeps failing"))?;
        let mut attempts = 0;
        loop {
            let token = self.limiter.acquire().await;
            token.map_err(|after| self.retry_later(after, "our rate limit is used up"))?;
            // Another call may have been paused while this one waited for the rate limiter.
            self.check_pause()?;
            let started_at = Instant::now();
            let (result, retry_after) = self.attempt(path, &parse).await;
            attempts += 1;
            let outcome = result.as_ref().map_or_else(AttemptError::outcome, |_| "ok");
            self.metrics.record_request(outcome, started_at.elapsed());
            let may_retry = attempts < MAX_ATTEMPTS && permit == Permit::Full;
            let wait = match result {
                Ok(value) => {
                    self.record_response();
                    return Ok(value);
                }
                Err(AttemptError::NotOffered) => {
                    self.record_response();
                    return Err(ProviderError::NotOffered(self.provider));
                }
                Err(AttemptError::Permanent(reason)) => {
                    self.record_response();
                    return Err(ProviderError::Failed(self.provider, reason));
                }
                Err(AttemptError::Banned(reason)) => {
                    return Err(self.start_pause(retry_after.unwrap_or_default().max(MIN_BAN), reason));
                }
                Err(AttemptError::RateLimited(reason)) => match retry_after.unwrap_or(self.limits.default_pause) {
                    wait if may_retry && wait <= MAX_RETRY_WAIT => wait,
                    wait => return Err(self.start_pause(wait, reason)),
                },
                Err(AttemptError::Transient(reason)) => match retry_after {
                    Some(wait) if wait > MAX_RETRY_WAIT => return Err(self.start_pause(wait, reason)),
                    wait if may_retry => wait.unwrap_or_default().max(BACKOFF.wait(attempts)),
                    _ => return Err(self.record_failure(reason)),
                },
                Err(AttemptError::TimedOut(reason)) => return Err(self.record_failure(reason)),
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn check_pause(&self) -> Result<(), ProviderError> {
        self.pause.check().map_err(|(after, reason)| self.retry_later(after, reason))
    }

    /// Pauses all calls. The provider has responded, so the circuit breaker closes.
    fn start_pause(&self, after: Duration, reason: String) -> ProviderError {
        self.record_response();
        self.pause.start(after, &reason);
        tracing::warn!(provider = %self.provider, retry_after_s = after.as_secs(), reason, "provider paused");
        self.retry_later(after, reason)
    }

    /// Records a response, even if it is a refusal.
    fn record_response(&self) {
        if self.breaker.record_success() {
            self.metrics.breaker.set(0.0);
            tracing::info!(provider = %self.provider, "provider recovered; circuit breaker closed");
        }
    }

    /// Records a failed call, with all its attempts.
    fn record_failure(&self, reason: String) -> ProviderError {
        if self.breaker.record_failure() {
            self.metrics.breaker.set(1.0);
            tracing::warn!(provider = %self.provider, reason, "provider keeps failing; circuit breaker opened");
        }
        ProviderError::Failed(self.provider, reason)
    }

    /// Makes one request. Returns the `Retry-After` of the response as well.
    async fn attempt<T>(
        &self,
        path: &str,
        parse: impl Fn(StatusCode, &str) -> Parsed<T>,
    ) -> (Parsed<Hashed<T>>, Option<Duration>) {
        let mut request = self.http.get(format!("{}/{path}", self.base)).header(header::ACCEPT, "application/json");
        if let Some((name, key)) = &self.limits.key {
            request = request.header(name, key);
        }
        let response = match send(request, self.provider.as_str()).await {
            Ok(response) => response,
            Err(error) => return (Err(AttemptError::transport(error)), None),
        };
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let parsed = read_body(response).await.and_then(|body| {
            classify(status)?;
            let value = parse(status, &body)?;
            let hash: BodyHash = Sha256::digest(&body).into();
            Ok((value, hash))
        });
        (parsed, retry_after)
    }
}

/// Reads a body as text, up to [`MAX_BODY_BYTES`].
async fn read_body(mut response: Response) -> Parsed<String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(AttemptError::transport)? {
        if bytes.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(AttemptError::Transient(format!("response is longer than {MAX_BODY_BYTES} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    // The error contains a position, and no bytes of the body.
    String::from_utf8(bytes)
        .map_err(|error| AttemptError::Transient(format!("response is not text: {}", error.utf8_error())))
}

/// Fails for the statuses that mean the same at every provider. The parser of the provider interprets the others.
fn classify(status: StatusCode) -> Parsed<()> {
    let reason = format!("status {}", status.as_u16());
    Err(match status {
        StatusCode::TOO_MANY_REQUESTS => AttemptError::RateLimited(reason),
        // 418 is the ban of Binance. 403 and 451 come from firewalls in front of any provider.
        StatusCode::IM_A_TEAPOT | StatusCode::FORBIDDEN | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
            AttemptError::Banned(reason)
        }
        StatusCode::REQUEST_TIMEOUT => AttemptError::Transient(reason),
        status if status.is_server_error() => AttemptError::Transient(reason),
        status if status.is_success() || status.is_client_error() => return Ok(()),
        _ => AttemptError::Permanent(reason),
    })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpSocket},
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
        let failed = client.get::<()>("prices?key=a-secret-query", |_, _| Err(AttemptError::NotOffered)).await;
        let error = causes(&failed.expect_err("no prices"));
        assert!(!error.contains("secret") && !error.contains("127.0.0.1"), "{error}");
        error
    }

    #[tokio::test]
    async fn a_refused_connection_is_named_without_secrets() {
        // The socket keeps the port from other tests, and nothing listens there.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let port = socket.local_addr().expect("an address").port();
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
