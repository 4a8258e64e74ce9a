//! Request and response bodies of a connection: unread request bodies are discarded, response bodies report progress.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::{sync::oneshot, time::timeout};

use super::idle_timeout::IdleTimeout;
use crate::middleware::body_limit::MAX_BODY_BYTES;

/// The limits for reading and discarding a body that no handler has read.
const MAX_DISCARDED_BYTES: usize = 8 * MAX_BODY_BYTES;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest part of a response that is passed to hyper at once. Progress is visible in parts of this size.
const MAX_PART: usize = 16 * 1024;

/// A request body for a handler. If it is dropped before its end, it is sent back to the connection.
struct RequestBody {
    body: Option<Incoming>,
    return_to: Option<oneshot::Sender<Option<Incoming>>>,
    /// Whether the connection may read the rest. Reading makes hyper send `100 Continue` to a client that waits for it.
    may_read: bool,
}

/// The unread rest of a request body, available once the handler has dropped it. The channel carries `None` for a body
/// that the client sends only after `100 Continue`.
pub(super) struct UnreadBody(Option<oneshot::Receiver<Option<Incoming>>>);

/// Wraps a request body for a handler. `expects_continue` is true if the client waits for `100 Continue` before it sends.
pub(super) fn wrap_request_body(body: Incoming, expects_continue: bool) -> (poem::Body, UnreadBody) {
    if body.is_end_stream() {
        return (poem::Body::empty(), UnreadBody(None));
    }
    let (return_to, unread) = oneshot::channel();
    let wrapped = RequestBody { body: Some(body), return_to: Some(return_to), may_read: !expects_continue };
    (poem::Body::from(BoxBody::new(wrapped)), UnreadBody(Some(unread)))
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.may_read = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(body), Some(return_to)) = (self.body.take(), self.return_to.take()) {
            // Without a receiver the connection is closed.
            let _ = return_to.send(Some(body).filter(|_| self.may_read));
        }
    }
}

impl UnreadBody {
    /// Reads and discards the rest of the body, within limits: most clients read the response only after they have sent
    /// everything. Returns `false` if bytes may remain.
    pub(super) async fn discard(self) -> bool {
        let Some(mut unread) = self.0 else { return true };
        let mut body = match unread.try_recv() {
            Ok(Some(body)) => body,
            Ok(None) => return false,
            // The body was read to its end, or it failed.
            Err(_) => return true,
        };
        let reading = async {
            let mut length = 0;
            while let Some(Ok(frame)) = body.frame().await {
                length += frame.data_ref().map_or(0, Bytes::len);
                if length > MAX_DISCARDED_BYTES {
                    return false;
                }
            }
            true
        };
        timeout(DISCARD_TIMEOUT, reading).await.unwrap_or(false)
    }
}

/// A response body. It keeps its connection open as long as the client reads parts of it.
pub(super) struct ResponseBody {
    body: BoxBody<Bytes, io::Error>,
    rest: Bytes,
    idle_timeout: Arc<IdleTimeout>,
}

impl ResponseBody {
    pub(super) fn new(body: BoxBody<Bytes, io::Error>, idle_timeout: Arc<IdleTimeout>) -> Self {
        Self { body, rest: Bytes::new(), idle_timeout }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            self.idle_timeout.record_progress();
            match frame.into_data() {
                // Over HTTP/1.1, writes to the socket show the client's progress.
                Ok(data) if self.idle_timeout.is_http2() => self.rest = data,
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        self.idle_timeout.record_progress();
        let length = self.rest.len().min(MAX_PART);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
