//! The TCP stream of a connection: records activity, detects disconnects, and replaces hyper's own error responses.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::body::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{hyper_errors, idle_timeout::IdleTimeout};

/// The time in which a closing connection still reads what its client sends. If it closed at once, the kernel would reset
/// the connection, and the client could lose the last response.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// A stream that reports its reads and writes to the idle timeout.
pub(super) struct TimedStream {
    stream: TcpStream,
    idle_timeout: Arc<IdleTimeout>,
    /// Whether hyper waits for bytes; then it sees the end of the stream itself.
    reading: bool,
    /// The bytes to send instead of hyper's own error response.
    replacement: Bytes,
}

impl TimedStream {
    pub(super) fn new(stream: TcpStream, idle_timeout: Arc<IdleTimeout>) -> Self {
        Self { stream, idle_timeout, reading: false, replacement: Bytes::new() }
    }

    fn record_written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = written {
            self.idle_timeout.record_sent();
        }
        written
    }

    /// Replaces one of hyper's own error responses. Returns `false` for other bytes.
    fn replace_hyper_error(&mut self, written: &[u8]) -> bool {
        let Some(response) = hyper_errors::to_problem_response(written) else { return false };
        self.replacement = response;
        self.idle_timeout.close_within(LINGER);
        true
    }

    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.replacement.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.replacement))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.replacement.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Detects a disconnect while a handler runs and hyper reads nothing.
    ///
    /// The end of the client's data is no disconnect, because the client may wait for the response. A reset is one.
    fn detect_disconnect(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.reading || !self.idle_timeout.is_handling_http1() {
            return Ok(());
        }
        let mut byte = [0];
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) => self.idle_timeout.half_closed().cancel(),
            Poll::Ready(Err(error)) => return Err(error),
            // No data, or already the next request.
            Poll::Pending | Poll::Ready(Ok(_)) => {}
        }
        Ok(())
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.reading = read.is_pending();
        if buf.filled().len() > before {
            self.idle_timeout.record_received();
        } else if let Poll::Ready(Ok(())) = read {
            self.idle_timeout.half_closed().cancel();
        }
        read
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_replacement(cx))?;
        if self.replace_hyper_error(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.record_written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_replacement(cx))?;
        // hyper writes its own error responses in one piece.
        if let Some(first) = bufs.first()
            && self.replace_hyper_error(first)
        {
            return Poll::Ready(Ok(first.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.record_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        // hyper flushes on each wake-up, also while a handler runs.
        self.detect_disconnect(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        // Reads until the client closes too, or the deadline passes.
        let mut scratch = [0; 16 * 1024];
        while self.idle_timeout.is_closing() {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
