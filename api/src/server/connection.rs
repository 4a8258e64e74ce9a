//! One HTTP/1.1 or HTTP/2 connection: closed when it is slow or idle, drained at shutdown.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use poem::{
    Addr, Endpoint, Response,
    http::{HeaderValue, StatusCode, Version, header, uri::Scheme},
    web::{LocalAddr, RemoteAddr},
};
use tokio::{net::TcpStream, pin, select, time::sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    bodies::{self, ResponseBody},
    head::{self, RequestRejection},
    idle_timeout::{IdleTimeout, TimeLimits},
    stream::{LINGER, TimedStream},
};

/// Concurrent requests on one HTTP/2 connection; the client queues further ones.
const MAX_STREAMS: u32 = 256;
/// The largest part of an HTTP/2 response that is buffered beyond the client's flow-control window. Progress is visible
/// only when hyper requests more data, so the buffer must be small.
const MAX_UNSENT_BYTES: usize = 64 * 1024;
/// The largest list of headers that h2 stores. A larger request gets h2's own 431, without a problem or a correlation id. So
/// this is far above [`head::MAX_HEAD_BYTES`], which refuses all that a client may send by mistake. h2 counts 32 bytes for
/// each header in addition to its name and value, and drops a connection that sends several times as much.
///
/// A request holds this memory only until it is refused, and repeated values of a compressed list share theirs.
const MAX_HEADER_LIST_BYTES: u32 = 1024 * 1024;
const _: () = assert!(MAX_HEADER_LIST_BYTES as usize >= 16 * head::MAX_HEAD_BYTES);
/// Interval of HTTP/2 pings, and the time limit for their acknowledgement.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// The time in which an HTTP/2 client can receive the GOAWAY of its idle connection.
const GOAWAY_TIME: Duration = Duration::from_secs(1);

/// Cancelled when the client has shut down its side of the connection. Every request carries it.
///
/// Such a client sends nothing more, but may still read the response. It may also be gone, which only writing the response
/// can show. So a handler that waits for an event must end its wait.
#[derive(Debug, Clone)]
pub struct HalfClosed(pub CancellationToken);

/// The two steps of a shutdown for connections.
#[derive(Clone)]
pub(super) struct ShutdownSignals {
    /// Each response closes its connection.
    pub draining: CancellationToken,
    /// Idle connections close at once.
    pub close_idle: CancellationToken,
}

/// Serves connections: hyper's settings and the endpoint.
pub(super) struct ConnectionServer<E> {
    builder: auto::Builder<TokioExecutor>,
    endpoint: Arc<E>,
}

/// The requests that a connection may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionKind {
    /// All requests.
    Normal,
    /// Only health checks: the limit of normal connections is reached.
    HealthOnly,
}

impl<E: Endpoint<Output = Response> + 'static> ConnectionServer<E> {
    pub(super) fn new(endpoint: E) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // hyper's own header timeout is not used: it sets and clears a timer for every request, starts only when the
        // protocol is known, and counts idle time too. `IdleTimeout` avoids all three.
        // Half-close is on: a client may shut down its side and wait for the response (RFC 9112 §9.6).
        builder.http1().max_buf_size(head::MAX_HEAD_BYTES).header_read_timeout(None).half_close(true);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(MAX_UNSENT_BYTES)
            .max_header_list_size(MAX_HEADER_LIST_BYTES);
        Self { builder, endpoint: Arc::new(endpoint) }
    }

    /// Serves one connection to its end.
    pub(super) async fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        kind: ConnectionKind,
        signals: ShutdownSignals,
    ) {
        // Responses are written whole, so Nagle's algorithm would only delay them. If this fails, all else still works.
        let _ = stream.set_nodelay(true);
        let remote = RemoteAddr(Addr::SocketAddr(peer));
        let local = stream.local_addr().map_or_else(|_| LocalAddr::default(), |addr| LocalAddr(Addr::SocketAddr(addr)));
        let limits = if kind == ConnectionKind::Normal { TimeLimits::NORMAL } else { TimeLimits::HEALTH_ONLY };
        let idle_timeout = Arc::new(IdleTimeout::start(limits));
        let service = service_fn({
            // A clone of the token itself would lock the one that all connections share, for each request.
            let (idle_timeout, draining) = (Arc::clone(&idle_timeout), Arc::new(signals.draining.clone()));
            move |request: Request<Incoming>| {
                let handler =
                    RequestHandler { idle_timeout: Arc::clone(&idle_timeout), draining: Arc::clone(&draining), kind };
                handler.handle(Arc::clone(&self.endpoint), request, local.clone(), remote.clone())
            }
        });
        let stream = TimedStream::new(stream, Arc::clone(&idle_timeout));
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let deadline = sleep_until(idle_timeout.next_check());
        pin!(connection, deadline);
        let mut stopping = false;
        loop {
            let expired = poll_fn(|cx| {
                // The result is ignored: connection errors are caused by the client.
                if connection.as_mut().poll(cx).is_ready() {
                    Poll::Ready(false)
                } else {
                    poll_deadline(&idle_timeout, deadline.as_mut(), cx).map(|()| true)
                }
            });
            select! {
                // The connection first: a request that has already arrived gets its response.
                biased;
                expired = expired => {
                    if !expired || idle_timeout.is_closing() || !idle_timeout.is_http2() {
                        return;
                    }
                    // GOAWAY names the last accepted request, so the client can send later ones on another connection.
                    idle_timeout.close_within(GOAWAY_TIME);
                }
                () = signals.close_idle.cancelled(), if !stopping => {}
            }
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
    }
}

/// Handles one request of a connection.
struct RequestHandler {
    idle_timeout: Arc<IdleTimeout>,
    draining: Arc<CancellationToken>,
    kind: ConnectionKind,
}

impl RequestHandler {
    async fn handle<E: Endpoint<Output = Response>>(
        self,
        endpoint: Arc<E>,
        request: Request<Incoming>,
        local: LocalAddr,
        remote: RemoteAddr,
    ) -> Result<hyper::Response<ResponseBody>, Infallible> {
        let Self { idle_timeout, draining, kind } = self;
        let in_flight = idle_timeout.start_request(request.version());
        let health_only = kind == ConnectionKind::HealthOnly;
        let rejection = head::check(&request).or(health_only.then_some(RequestRejection::Overloaded));
        let (mut head, body) = request.into_parts();
        let http1 = head.version <= Version::HTTP_11;
        let (body, unread) = bodies::wrap_request_body(body, head.headers.contains_key(header::EXPECT));
        head.extensions.insert(HalfClosed(idle_timeout.half_closed().clone()));
        if let Some(rejection) = rejection {
            head.extensions.insert(rejection);
        }
        let request = poem::Request::from_parts((head, local, remote, Scheme::HTTP).into(), body);
        let mut response = endpoint.get_response(request).await;
        // After a timeout of the body, its rest is not read.
        let complete = response.status() != StatusCode::REQUEST_TIMEOUT && unread.discard().await;
        if !complete && http1 {
            idle_timeout.close_within(LINGER);
        }
        if http1 && (!complete || draining.is_cancelled() || health_only) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        drop(in_flight);
        Ok(hyper::Response::from(response).map(|body| ResponseBody::new(body, idle_timeout)))
    }
}

/// Ready when the connection's deadline has passed.
///
/// The timer is reset only when it fires, or when an earlier deadline appears. Most requests need neither.
fn poll_deadline(
    idle_timeout: &IdleTimeout,
    mut timer: Pin<&mut tokio::time::Sleep>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if let Some(deadline) = idle_timeout.deadline().filter(|deadline| *deadline < timer.deadline()) {
        timer.as_mut().reset(deadline);
    }
    while timer.as_mut().poll(cx).is_ready() {
        if idle_timeout.has_expired() {
            return Poll::Ready(());
        }
        timer.as_mut().reset(idle_timeout.next_check());
    }
    Poll::Pending
}
