//! One connection: HTTP/1.1 or HTTP/2 as the client speaks it, cut off when it is slow or idle, drained when we stop.

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
    HalfClosed, Stop,
    bodies::{self, Answer},
    head::{self, Refused},
    pulse::{Patience, Pulse},
    stream::{LINGER, Watched},
};

/// Requests at a time on one HTTP/2 connection; more wait at the client.
const MOST_STREAMS: u32 = 256;
/// How much of one HTTP/2 answer is held ready beyond what its client has room for: what is taken of an answer shows only
/// when more of it is asked for.
const MOST_UNSENT: usize = 64 * 1024;
/// How often an HTTP/2 client must show that it is still there, and how long it may take.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// How long an HTTP/2 client has to take note that its idle connection ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// How connections are served.
pub struct Protocol<E> {
    builder: auto::Builder<TokioExecutor>,
    endpoint: Arc<E>,
}

/// What a connection is accepted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Any request.
    Usual,
    /// Health checks, since as many connections are served as can be.
    Spare,
}

impl<E: Endpoint<Output = Response> + 'static> Protocol<E> {
    pub fn new(endpoint: E) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // hyper's own limit on reading headers sets and clears a timer for every request, does not begin before the
        // protocol is known, and counts idle time as well; `Pulse` has none of that. A client may shut down its side and
        // wait for its answer (RFC 9112 §9.6).
        builder.http1().max_buf_size(head::LARGEST).header_read_timeout(None).half_close(true);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN)
            .max_concurrent_streams(MOST_STREAMS)
            .max_send_buf_size(MOST_UNSENT)
            // Beyond our own limit, so that most of what exceeds that is answered by a problem.
            .max_header_list_size(4 * head::LARGEST as u32);
        Self { builder, endpoint: Arc::new(endpoint) }
    }

    /// Serves one connection to its end.
    pub async fn serve(&self, stream: TcpStream, peer: SocketAddr, lane: Lane, stop: Stop) {
        // Answers are written whole; waiting for more to send with them would only delay them. Without it, all works.
        let _ = stream.set_nodelay(true);
        let remote = RemoteAddr(Addr::SocketAddr(peer));
        let local = stream.local_addr().map_or_else(|_| LocalAddr::default(), |addr| LocalAddr(Addr::SocketAddr(addr)));
        let patience = if lane == Lane::Usual { Patience::USUAL } else { Patience::SPARE };
        let pulse = Arc::new(Pulse::start(patience));
        let service = service_fn({
            let (pulse, draining) = (Arc::clone(&pulse), stop.draining.clone());
            move |request: Request<Incoming>| {
                let served = Served { pulse: Arc::clone(&pulse), draining: draining.clone(), lane };
                served.answer(Arc::clone(&self.endpoint), request, local.clone(), remote.clone())
            }
        });
        let connection = self.builder.serve_connection(TokioIo::new(Watched::new(stream, Arc::clone(&pulse))), service);
        let deadline = sleep_until(pulse.deadline_or_later());
        pin!(connection, deadline);
        let mut stopping = false;
        loop {
            let late = poll_fn(|cx| {
                // How it ended interests nothing here: broken connections are the client's.
                if connection.as_mut().poll(cx).is_ready() {
                    Poll::Ready(false)
                } else {
                    poll_deadline(&pulse, deadline.as_mut(), cx).map(|()| true)
                }
            });
            select! {
                // First what has come: a request that is here already is answered.
                biased;
                late = late => {
                    if !late || pulse.is_ending() || !pulse.http2() {
                        return;
                    }
                    // Its client learns which requests were not taken, and can send them elsewhere.
                    pulse.end_within(GOODBYE);
                }
                () = stop.now.cancelled(), if !stopping => {}
            }
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
    }
}

/// What the requests of a connection have in common.
struct Served {
    pulse: Arc<Pulse>,
    draining: CancellationToken,
    lane: Lane,
}

impl Served {
    async fn answer<E: Endpoint<Output = Response>>(
        self,
        endpoint: Arc<E>,
        request: Request<Incoming>,
        local: LocalAddr,
        remote: RemoteAddr,
    ) -> Result<hyper::Response<Answer>, Infallible> {
        let Self { pulse, draining, lane } = self;
        let in_flight = pulse.request(request.version());
        let refused = head::check(&request).or((lane == Lane::Spare).then_some(Refused::Full));
        let (mut head, body) = request.into_parts();
        let http1 = head.version <= Version::HTTP_11;
        let (body, unread) = bodies::lend(body, head.headers.contains_key(header::EXPECT));
        head.extensions.insert(HalfClosed(pulse.half_closed().clone()));
        if let Some(refused) = refused {
            head.extensions.insert(refused);
        }
        let request = poem::Request::from_parts((head, local, remote, Scheme::HTTP).into(), body);
        let mut response = endpoint.get_response(request).await;
        // One that came too slowly is not waited for any longer.
        let all = response.status() != StatusCode::REQUEST_TIMEOUT && unread.discard().await;
        if !all && http1 {
            pulse.end_within(LINGER);
        }
        if http1 && (!all || draining.is_cancelled() || lane == Lane::Spare) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        drop(in_flight);
        Ok(hyper::Response::from(response).map(|body| Answer::new(body, pulse)))
    }
}

/// Ready when the client's time is over. The timer is only moved when it fires, or when a deadline appears before it:
/// in the usual course of requests neither happens.
fn poll_deadline(pulse: &Pulse, mut timer: Pin<&mut tokio::time::Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    if let Some(deadline) = pulse.deadline().filter(|deadline| *deadline < timer.deadline()) {
        timer.as_mut().reset(deadline);
    }
    while timer.as_mut().poll(cx).is_ready() {
        if pulse.is_over() {
            return Poll::Ready(());
        }
        timer.as_mut().reset(pulse.deadline_or_later());
    }
    Poll::Pending
}
