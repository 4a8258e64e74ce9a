//! The bodies of a request and of its answer, as the connection sees them.

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

use super::pulse::Pulse;
use crate::middleware::body_limit::LARGEST;

/// How much of a body that no handler wanted is read all the same, and how long that may take.
const DISCARDED_AT_MOST: usize = 8 * LARGEST;
const DISCARDED_WITHIN: Duration = Duration::from_secs(5);
/// The largest part of an answer that is handed on at a time: what of it has been taken shows in parts of this size.
const PART: usize = 16 * 1024;

/// A request's body in the hands of a handler. Dropped before its end, it comes back to the connection.
struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Option<Incoming>>>,
    /// Reading asks a client that waits for `100 Continue` to send.
    may_read: bool,
}

/// What a handler has not read of a request's body, once it has been dropped; `None` comes for one that the client
/// holds back until it is asked for it.
pub struct Unread(Option<oneshot::Receiver<Option<Incoming>>>);

/// Lends a request's body to a handler. `waits` says that the client sends nothing before it is asked to.
pub fn lend(body: Incoming, waits: bool) -> (poem::Body, Unread) {
    if body.is_end_stream() {
        return (poem::Body::empty(), Unread(None));
    }
    let (back, unread) = oneshot::channel();
    let lent = Lent { body: Some(body), back: Some(back), may_read: !waits };
    (poem::Body::from(BoxBody::new(lent)), Unread(Some(unread)))
}

impl Body for Lent {
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

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Without a receiver the connection is gone.
            let _ = back.send(Some(body).filter(|_| self.may_read));
        }
    }
}

impl Unread {
    /// Reads and drops what the handler has left, within bounds: most clients read no answer before they have sent all.
    /// `false` when something may be left.
    pub async fn discard(self) -> bool {
        let Some(mut unread) = self.0 else { return true };
        let mut body = match unread.try_recv() {
            Ok(Some(body)) => body,
            Ok(None) => return false,
            // Read to its end, or broken off.
            Err(_) => return true,
        };
        let reading = async {
            let mut length = 0;
            while let Some(Ok(frame)) = body.frame().await {
                length += frame.data_ref().map_or(0, Bytes::len);
                if length > DISCARDED_AT_MOST {
                    return false;
                }
            }
            true
        };
        timeout(DISCARDED_WITHIN, reading).await.unwrap_or(false)
    }
}

/// An answer's body, which keeps its connection alive as long as parts of it are taken.
pub struct Answer {
    body: BoxBody<Bytes, io::Error>,
    rest: Bytes,
    pulse: Arc<Pulse>,
}

impl Answer {
    pub fn new(body: BoxBody<Bytes, io::Error>, pulse: Arc<Pulse>) -> Self {
        Self { body, rest: Bytes::new(), pulse }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            self.pulse.progress();
            match frame.into_data() {
                // HTTP/1.1 writes as fast as its client takes, and that shows in the writes.
                Ok(data) if self.pulse.http2() => self.rest = data,
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        self.pulse.progress();
        let length = self.rest.len().min(PART);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let upper = hint.upper();
        hint.set_lower(0);
        if let Some(upper) = upper {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(self.body.size_hint().lower().saturating_add(rest));
        hint
    }
}
