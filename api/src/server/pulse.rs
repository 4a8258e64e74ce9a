//! When a connection has been slow or idle for too long.

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

/// No time, as milliseconds since the start.
const NEVER: u64 = u64::MAX;

/// How long a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the first byte of a request to the end of its headers, and from connecting to the first request.
    headers: Duration,
    /// Between requests.
    idle: Duration,
    /// From connecting to the end, whatever happens.
    whole: Option<Duration>,
}

impl Patience {
    /// Idle time is longer than the minute after which common proxies close their connections, so that they are the ones
    /// who close and no request is sent into a closing connection.
    pub const USUAL: Self = Self { headers: Duration::from_secs(10), idle: Duration::from_secs(75), whole: None };
    /// Of the connections beyond the limit: each holds up a health check, of which one takes a few seconds at most.
    pub const SPARE: Self =
        Self { headers: Duration::from_secs(2), idle: Duration::from_secs(2), whole: Some(Duration::from_secs(10)) };
}

/// What happens on a connection, as far as its deadline depends on it. Times are in milliseconds since the start.
/// Shared with the tasks of HTTP/2 requests; the values stand each for itself, so their order does not matter.
pub struct Pulse {
    start: Instant,
    patience: Patience,
    in_flight: AtomicUsize,
    /// When the headers of a request began to arrive that are not complete.
    head_since: AtomicU64,
    /// When the last answer was made or the last part of one was taken.
    alive: AtomicU64,
    /// When the connection ends, whatever happens.
    ends_at: AtomicU64,
    /// A first request has come.
    greeted: AtomicBool,
    /// Bytes of HTTP/2 may as well be pings: those that come announce no headers, and those that leave are no answer.
    http2: AtomicBool,
    /// Cancelled when the client has shut down its side: it sends nothing more, but may wait for an answer.
    half_closed: CancellationToken,
}

impl Pulse {
    pub fn start(patience: Patience) -> Self {
        Self {
            start: Instant::now(),
            patience,
            in_flight: AtomicUsize::new(0),
            head_since: AtomicU64::new(NEVER),
            alive: AtomicU64::new(0),
            ends_at: AtomicU64::new(NEVER),
            greeted: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            half_closed: CancellationToken::new(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// A request whose headers are complete is being answered until the guard is dropped.
    pub fn request(self: &Arc<Self>, version: Version) -> InFlight {
        if !self.greeted.swap(true, Relaxed) {
            self.http2.store(version == Version::HTTP_2, Relaxed);
        }
        self.head_since.store(NEVER, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Bytes have come.
    pub fn received(&self) {
        let head = self.in_flight.load(Relaxed) == 0 && !self.http2();
        if head && self.head_since.load(Relaxed) == NEVER {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    /// Bytes have left.
    pub fn sent(&self) {
        if !self.http2() {
            self.progress();
        }
    }

    /// A part of an answer has been taken.
    pub fn progress(&self) {
        self.alive.store(self.now(), Relaxed);
    }

    /// Whether the client speaks HTTP/2; known from its first request on.
    pub fn http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    /// Cancelled once the client has shut down its side.
    pub fn half_closed(&self) -> &CancellationToken {
        &self.half_closed
    }

    /// Whether a handler is at work for an HTTP/1.1 client whose leaving nothing else would notice.
    pub fn is_awaited(&self) -> bool {
        self.in_flight.load(Relaxed) > 0 && !self.http2() && !self.half_closed.is_cancelled()
    }

    /// Ends the connection after this time at the latest.
    pub fn end_within(&self, time: Duration) {
        let time = u64::try_from(time.as_millis()).unwrap_or(NEVER - 1);
        self.ends_at.fetch_min(self.now().saturating_add(time), Relaxed);
    }

    /// Whether the end of the connection is set.
    pub fn is_ending(&self) -> bool {
        self.ends_at.load(Relaxed) != NEVER
    }

    /// When the client's time will be over if nothing happens; `None` while a request is being answered, whose time is
    /// the handler's.
    pub fn deadline(&self) -> Option<Instant> {
        let whole = self.patience.whole.map(|whole| self.start + whole);
        let parts = self.deadline_of_parts();
        whole.into_iter().chain(parts).min()
    }

    fn deadline_of_parts(&self) -> Option<Instant> {
        let at = |since: u64, allowed: Duration| Some(self.start + Duration::from_millis(since) + allowed);
        if self.is_ending() {
            return at(self.ends_at.load(Relaxed), Duration::ZERO);
        }
        if self.in_flight.load(Relaxed) > 0 {
            return None;
        }
        if !self.greeted.load(Relaxed) {
            return at(0, self.patience.headers);
        }
        match self.head_since.load(Relaxed) {
            NEVER => at(self.alive.load(Relaxed), self.patience.idle),
            since => at(since, self.patience.headers),
        }
    }

    /// When to look again.
    pub fn deadline_or_later(&self) -> Instant {
        self.deadline().unwrap_or_else(|| Instant::now() + self.patience.idle)
    }

    /// Whether the client's time is over.
    pub fn is_over(&self) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// A request that is being answered, or was dropped with its connection.
pub struct InFlight(Arc<Pulse>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.progress();
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const IDLE: Duration = Patience::USUAL.idle;

    fn start() -> Arc<Pulse> {
        Arc::new(Pulse::start(Patience::USUAL))
    }

    fn left(pulse: &Pulse) -> Option<Duration> {
        pulse.deadline().map(|deadline| deadline - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_request_has_ten_seconds() {
        let pulse = start();
        advance(Duration::from_secs(4)).await;
        pulse.received();
        assert_eq!(left(&pulse), Some(Duration::from_secs(6)));
        advance(Duration::from_secs(6)).await;
        assert!(pulse.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn later_requests_have_ten_seconds_from_their_first_byte() {
        let pulse = start();
        let request = pulse.request(Version::HTTP_11);
        advance(Duration::from_secs(3600)).await;
        assert_eq!(left(&pulse), None);
        drop(request);
        assert_eq!(left(&pulse), Some(IDLE));
        advance(Duration::from_secs(60)).await;
        assert!(!pulse.is_over());
        pulse.received();
        advance(Duration::from_secs(9)).await;
        pulse.received();
        assert_eq!(left(&pulse), Some(Duration::from_secs(1)));
        drop(pulse.request(Version::HTTP_11));
        assert_eq!(left(&pulse), Some(IDLE));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_on_its_way_is_not_idle() {
        let pulse = start();
        drop(pulse.request(Version::HTTP_11));
        advance(Duration::from_secs(70)).await;
        pulse.sent();
        assert_eq!(left(&pulse), Some(IDLE));
    }

    #[tokio::test(start_paused = true)]
    async fn http2_pings_are_neither_requests_nor_answers() {
        let pulse = start();
        drop(pulse.request(Version::HTTP_2));
        pulse.received();
        assert_eq!(left(&pulse), Some(IDLE));
        advance(Duration::from_secs(70)).await;
        pulse.sent();
        assert_eq!(left(&pulse), Some(Duration::from_secs(5)));
        pulse.progress();
        assert_eq!(left(&pulse), Some(IDLE), "a part of an answer is an answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_spare_connection_ends_whatever_is_asked_over_it() {
        let pulse = Arc::new(Pulse::start(Patience::SPARE));
        let _request = pulse.request(Version::HTTP_2);
        assert_eq!(left(&pulse), Some(Duration::from_secs(10)));
        assert!(!pulse.is_ending(), "its end is not waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_set_is_moved_by_nothing() {
        let pulse = start();
        let _request = pulse.request(Version::HTTP_11);
        pulse.end_within(Duration::from_secs(5));
        pulse.end_within(Duration::from_secs(8));
        pulse.progress();
        assert_eq!(left(&pulse), Some(Duration::from_secs(5)));
    }
}
