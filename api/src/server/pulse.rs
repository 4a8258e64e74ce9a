//! When a connection has been slow or idle for too long.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use poem::http::Version;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

/// The time from the first byte of a request to the end of its headers, and from connecting to the first request.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may rest between requests: longer than the minute after which common proxies close theirs, so
/// that they are the ones who close and no request is sent into a closing connection.
const IDLE: Duration = Duration::from_secs(75);
/// No time, as milliseconds since the start.
const NEVER: u64 = u64::MAX;

/// What happens on a connection, as far as its deadline depends on it. Times are in milliseconds since the start.
/// Shared with the tasks of HTTP/2 requests; the values stand each for itself, so their order does not matter.
pub struct Pulse {
    start: Instant,
    in_flight: AtomicUsize,
    /// When the headers of a request began to arrive that are not complete.
    head_since: AtomicU64,
    /// When the last answer was made or the last byte of one was written.
    alive: AtomicU64,
    /// A first request has come.
    greeted: AtomicBool,
    /// Bytes of HTTP/2 may as well be pings, so they do not announce headers.
    http2: AtomicBool,
}

impl Pulse {
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            in_flight: AtomicUsize::new(0),
            head_since: AtomicU64::new(NEVER),
            alive: AtomicU64::new(0),
            greeted: AtomicBool::new(false),
            http2: AtomicBool::new(false),
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

    fn received(&self) {
        let head = self.in_flight.load(Relaxed) == 0 && !self.http2.load(Relaxed);
        if head && self.head_since.load(Relaxed) == NEVER {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    fn sent(&self) {
        self.alive.store(self.now(), Relaxed);
    }

    /// When the client's time will be over if nothing happens; `None` while a request is being answered, whose time is
    /// the handler's.
    pub fn deadline(&self) -> Option<Instant> {
        if self.in_flight.load(Relaxed) > 0 {
            return None;
        }
        let (since, allowed) = if !self.greeted.load(Relaxed) {
            (0, HEADERS_WITHIN)
        } else {
            match self.head_since.load(Relaxed) {
                NEVER => (self.alive.load(Relaxed), IDLE),
                since => (since, HEADERS_WITHIN),
            }
        };
        Some(self.start + Duration::from_millis(since) + allowed)
    }

    /// When to look again.
    pub fn deadline_or_later(&self) -> Instant {
        self.deadline().unwrap_or_else(|| Instant::now() + IDLE)
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
        self.0.sent();
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A stream that tells the pulse of what passes through it.
pub struct Watched {
    stream: TcpStream,
    pulse: Arc<Pulse>,
}

impl Watched {
    pub fn new(stream: TcpStream, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse }
    }

    fn note_sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = written {
            self.pulse.sent();
        }
        written
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pulse.received();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn left(pulse: &Pulse) -> Option<Duration> {
        pulse.deadline().map(|deadline| deadline - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_request_has_ten_seconds() {
        let pulse = Arc::new(Pulse::start());
        advance(Duration::from_secs(4)).await;
        pulse.received();
        assert_eq!(left(&pulse), Some(Duration::from_secs(6)));
        advance(Duration::from_secs(6)).await;
        assert!(pulse.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn later_requests_have_ten_seconds_from_their_first_byte() {
        let pulse = Arc::new(Pulse::start());
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
        let pulse = Arc::new(Pulse::start());
        drop(pulse.request(Version::HTTP_11));
        advance(Duration::from_secs(70)).await;
        pulse.sent();
        assert_eq!(left(&pulse), Some(IDLE));
    }

    #[tokio::test(start_paused = true)]
    async fn http2_pings_announce_no_request() {
        let pulse = Arc::new(Pulse::start());
        drop(pulse.request(Version::HTTP_2));
        pulse.received();
        assert_eq!(left(&pulse), Some(IDLE));
    }
}
