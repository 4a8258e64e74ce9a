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
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};
use tokio::{net::TcpStream, pin, select, time::sleep_until};
use tokio_util::sync::CancellationToken;

use super::pulse::{Pulse, Watched};

/// All headers of a request together. Four times what browsers send, and what proxies in front of us accept.
const LARGEST_HEAD: usize = 64 * 1024;
/// Requests at a time on one HTTP/2 connection; more wait at the client.
const MOST_STREAMS: u32 = 256;
/// How often an HTTP/2 client must show that it is still there, and how long it may take.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// How connections are served.
pub struct Protocol<E> {
    builder: auto::Builder<TokioExecutor>,
    endpoint: Arc<E>,
}

impl<E: Endpoint<Output = Response> + 'static> Protocol<E> {
    pub fn new(endpoint: E) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // hyper's own limit on reading headers sets and clears a timer for every request, does not begin before the
        // protocol is known, and counts idle time as well; `Pulse` has none of that.
        builder.http1().max_buf_size(LARGEST_HEAD).header_read_timeout(None);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN)
            .max_concurrent_streams(MOST_STREAMS)
            .max_header_list_size(LARGEST_HEAD as u32);
        Self { builder, endpoint: Arc::new(endpoint) }
    }

    /// Serves one connection to its end.
    pub async fn serve(&self, stream: TcpStream, peer: SocketAddr, shutdown: CancellationToken) {
        // Answers are written whole; waiting for more to send with them would only delay them. Without it, all works.
        let _ = stream.set_nodelay(true);
        let remote = RemoteAddr(Addr::SocketAddr(peer));
        let local = stream.local_addr().map_or_else(|_| LocalAddr::default(), |addr| LocalAddr(Addr::SocketAddr(addr)));
        let pulse = Arc::new(Pulse::start());
        let service = service_fn({
            let pulse = Arc::clone(&pulse);
            move |request: Request<Incoming>| {
                let in_flight = pulse.request(request.version());
                let endpoint = Arc::clone(&self.endpoint);
                let request = (request, local.clone(), remote.clone(), Scheme::HTTP).into();
                async move {
                    let response = endpoint.get_response(request).await;
                    drop(in_flight);
                    Ok::<_, Infallible>(hyper::Response::from(response))
                }
            }
        });
        let connection = self.builder.serve_connection(TokioIo::new(Watched::new(stream, Arc::clone(&pulse))), service);
        let deadline = sleep_until(pulse.deadline_or_later());
        pin!(connection, deadline);
        let mut stopping = false;
        loop {
            let over = poll_fn(|cx| {
                // How it ended interests nobody: broken connections are the client's.
                if connection.as_mut().poll(cx).is_ready() {
                    Poll::Ready(())
                } else {
                    poll_deadline(&pulse, deadline.as_mut(), cx)
                }
            });
            select! {
                () = over => return,
                () = shutdown.cancelled(), if !stopping => {
                    connection.as_mut().graceful_shutdown();
                    stopping = true;
                }
            }
        }
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
