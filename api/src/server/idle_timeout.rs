//! The deadline of a connection: limits slow headers, idle time and, for reserved connections, the whole lifetime.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use poem::http::Version;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The value of a time that is not set.
const NEVER: u64 = u64::MAX;

/// The time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimits {
    /// From the first byte of a request to the end of its headers, and from accept to the first request.
    headers: Duration,
    /// Between requests.
    idle: Duration,
    /// From accept to the end, also while requests run.
    lifetime: Option<Duration>,
}

impl TimeLimits {
    /// The idle limit is longer than that of common proxies, which is 60 s. So the proxy closes first, and does not send a
    /// request into a closing connection.
    pub(super) const NORMAL: Self =
        Self { headers: Duration::from_secs(10), idle: Duration::from_secs(75), lifetime: None };
    /// For reserved connections. They are few and each blocks other health checks, which take a few seconds at most.
    pub(super) const HEALTH_ONLY: Self =
        Self { headers: Duration::from_secs(2), idle: Duration::from_secs(2), lifetime: Some(Duration::from_secs(10)) };
}

/// The activity of a connection and the deadline that results from it. Times are in milliseconds since the start.
///
/// HTTP/2 requests run in other tasks and share this. The values are independent, so relaxed ordering is enough.
pub(super) struct IdleTimeout {
    start: Instant,
    limits: TimeLimits,
    in_flight: AtomicUsize,
    /// When the current, incomplete headers began to arrive.
    head_started: AtomicU64,
    /// When the last response was built, or the client last read a part of one.
    last_progress: AtomicU64,
    /// When the connection closes, also while requests run.
    closes_at: AtomicU64,
    /// Whether a request has arrived.
    had_request: AtomicBool,
    /// Whether the client speaks HTTP/2. Its bytes may be pings, so they show neither headers nor response progress.
    is_http2: AtomicBool,
    /// Cancelled when the client has shut down its side. It sends nothing more, but may wait for a response.
    half_closed: CancellationToken,
}

impl IdleTimeout {
    pub(super) fn start(limits: TimeLimits) -> Self {
        Self {
            start: Instant::now(),
            limits,
            in_flight: AtomicUsize::new(0),
            head_started: AtomicU64::new(NEVER),
            last_progress: AtomicU64::new(0),
            closes_at: AtomicU64::new(NEVER),
            had_request: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            half_closed: CancellationToken::new(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// Records a request whose headers are complete. It is in flight until the guard is dropped.
    pub(super) fn start_request(self: &Arc<Self>, version: Version) -> InFlightRequest {
        if !self.had_request.swap(true, Relaxed) {
            self.is_http2.store(version == Version::HTTP_2, Relaxed);
        }
        self.head_started.store(NEVER, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        InFlightRequest(Arc::clone(self))
    }

    /// Records that bytes have arrived.
    pub(super) fn record_received(&self) {
        let is_head = self.in_flight.load(Relaxed) == 0 && !self.is_http2();
        if is_head && self.head_started.load(Relaxed) == NEVER {
            self.head_started.store(self.now(), Relaxed);
        }
    }

    /// Records that bytes were sent.
    pub(super) fn record_sent(&self) {
        if !self.is_http2() {
            self.record_progress();
        }
    }

    /// Records that the client has read a part of a response.
    pub(super) fn record_progress(&self) {
        self.last_progress.store(self.now(), Relaxed);
    }

    /// Whether the client speaks HTTP/2; known since its first request.
    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    /// Cancelled once the client has shut down its side.
    pub(super) fn half_closed(&self) -> &CancellationToken {
        &self.half_closed
    }

    /// Whether a handler runs for an HTTP/1.1 client. Hyper would not notice its disconnect at this time.
    pub(super) fn is_handling_http1(&self) -> bool {
        self.in_flight.load(Relaxed) > 0 && !self.is_http2() && !self.half_closed.is_cancelled()
    }

    /// Closes the connection after this time at the latest.
    pub(super) fn close_within(&self, time: Duration) {
        let time = u64::try_from(time.as_millis()).unwrap_or(NEVER - 1);
        self.closes_at.fetch_min(self.now().saturating_add(time), Relaxed);
    }

    /// Whether the closing time is set.
    pub(super) fn is_closing(&self) -> bool {
        self.closes_at.load(Relaxed) != NEVER
    }

    /// When the connection expires without further activity. `None` while a request is in flight: a handler has its own time
    /// limits.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let end_of_lifetime = self.limits.lifetime.map(|lifetime| self.start + lifetime);
        end_of_lifetime.into_iter().chain(self.activity_deadline()).min()
    }

    fn activity_deadline(&self) -> Option<Instant> {
        let at = |since: u64, allowed: Duration| Some(self.start + Duration::from_millis(since) + allowed);
        if self.is_closing() {
            return at(self.closes_at.load(Relaxed), Duration::ZERO);
        }
        if self.in_flight.load(Relaxed) > 0 {
            return None;
        }
        if !self.had_request.load(Relaxed) {
            return at(0, self.limits.headers);
        }
        match self.head_started.load(Relaxed) {
            NEVER => at(self.last_progress.load(Relaxed), self.limits.idle),
            started => at(started, self.limits.headers),
        }
    }

    /// When to check the deadline next.
    pub(super) fn next_check(&self) -> Instant {
        self.deadline().unwrap_or_else(|| Instant::now() + self.limits.idle)
    }

    /// Whether the deadline has passed.
    pub(super) fn has_expired(&self) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// Guard of a request in flight. It is dropped with the response, or with the connection.
pub(super) struct InFlightRequest(Arc<IdleTimeout>);

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.0.record_progress();
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const IDLE: Duration = TimeLimits::NORMAL.idle;

    fn start() -> Arc<IdleTimeout> {
        Arc::new(IdleTimeout::start(TimeLimits::NORMAL))
    }

    fn remaining(idle_timeout: &IdleTimeout) -> Option<Duration> {
        idle_timeout.deadline().map(|deadline| deadline - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_request_has_ten_seconds() {
        let idle_timeout = start();
        advance(Duration::from_secs(4)).await;
        idle_timeout.record_received();
        assert_eq!(remaining(&idle_timeout), Some(Duration::from_secs(6)));
        advance(Duration::from_secs(6)).await;
        assert!(idle_timeout.has_expired());
    }

    #[tokio::test(start_paused = true)]
    async fn later_requests_have_ten_seconds_from_their_first_byte() {
        let idle_timeout = start();
        let request = idle_timeout.start_request(Version::HTTP_11);
        advance(Duration::from_secs(3600)).await;
        assert_eq!(remaining(&idle_timeout), None);
        drop(request);
        assert_eq!(remaining(&idle_timeout), Some(IDLE));
        advance(Duration::from_secs(60)).await;
        assert!(!idle_timeout.has_expired());
        idle_timeout.record_received();
        advance(Duration::from_secs(9)).await;
        idle_timeout.record_received();
        assert_eq!(remaining(&idle_timeout), Some(Duration::from_secs(1)));
        drop(idle_timeout.start_request(Version::HTTP_11));
        assert_eq!(remaining(&idle_timeout), Some(IDLE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_in_progress_is_not_idle() {
        let idle_timeout = start();
        drop(idle_timeout.start_request(Version::HTTP_11));
        advance(Duration::from_secs(70)).await;
        idle_timeout.record_sent();
        assert_eq!(remaining(&idle_timeout), Some(IDLE));
    }

    #[tokio::test(start_paused = true)]
    async fn http2_pings_are_neither_requests_nor_progress() {
        let idle_timeout = start();
        drop(idle_timeout.start_request(Version::HTTP_2));
        idle_timeout.record_received();
        assert_eq!(remaining(&idle_timeout), Some(IDLE));
        advance(Duration::from_secs(70)).await;
        idle_timeout.record_sent();
        assert_eq!(remaining(&idle_timeout), Some(Duration::from_secs(5)));
        idle_timeout.record_progress();
        assert_eq!(remaining(&idle_timeout), Some(IDLE), "a part of a response is progress");
    }

    #[tokio::test(start_paused = true)]
    async fn a_health_only_connection_has_a_limited_lifetime() {
        let idle_timeout = Arc::new(IdleTimeout::start(TimeLimits::HEALTH_ONLY));
        let _request = idle_timeout.start_request(Version::HTTP_2);
        assert_eq!(remaining(&idle_timeout), Some(Duration::from_secs(10)));
        assert!(!idle_timeout.is_closing(), "it closes without lingering");
    }

    #[tokio::test(start_paused = true)]
    async fn a_closing_time_is_never_postponed() {
        let idle_timeout = start();
        let _request = idle_timeout.start_request(Version::HTTP_11);
        idle_timeout.close_within(Duration::from_secs(5));
        idle_timeout.close_within(Duration::from_secs(8));
        idle_timeout.record_progress();
        assert_eq!(remaining(&idle_timeout), Some(Duration::from_secs(5)));
    }
}
