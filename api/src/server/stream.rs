//! A client's stream: it keeps the connection's times, notices a client that leaves, and completes bare error answers.

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

use super::{bare, pulse::Pulse};

/// How long a connection that ends takes what its client still sends. Closed at once, the kernel would reset it, and the
/// client could lose the answer that it was just sent.
pub const LINGER: Duration = Duration::from_secs(5);

/// A stream that tells the pulse of what passes through it.
pub struct Watched {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    /// Whether the reader waits for bytes: then it will see the end of them itself.
    reading: bool,
    /// What is sent instead of an error answer of the HTTP library.
    replacement: Bytes,
}

impl Watched {
    pub fn new(stream: TcpStream, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse, reading: false, replacement: Bytes::new() }
    }

    fn note_sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = written {
            self.pulse.sent();
        }
        written
    }

    /// Takes an error answer of the HTTP library over, if this is one.
    fn replaces(&mut self, written: &[u8]) -> bool {
        let Some(answer) = bare::completed(written) else { return false };
        self.replacement = answer;
        self.pulse.end_within(LINGER);
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

    /// Looks whether the client has left while its request is being answered, when nothing is read. An end of what it
    /// sends is no leaving: it may wait for the answer. A reset is.
    fn look_for_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.reading || !self.pulse.is_awaited() {
            return Ok(());
        }
        let mut byte = [0];
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) => self.pulse.half_closed().cancel(),
            Poll::Ready(Err(error)) => return Err(error),
            // Nothing, or the next request already.
            Poll::Pending | Poll::Ready(Ok(_)) => {}
        }
        Ok(())
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.reading = read.is_pending();
        if buf.filled().len() > before {
            self.pulse.received();
        } else if let Poll::Ready(Ok(())) = read {
            self.pulse.half_closed().cancel();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_replacement(cx))?;
        if self.replaces(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_replacement(cx))?;
        // The library writes an error answer by itself, in one piece.
        if let Some(first) = bufs.first()
            && self.replaces(first)
        {
            return Poll::Ready(Ok(first.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        // The library flushes whenever it is woken, also while it waits for a handler.
        self.look_for_end(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        // Until the client has closed too, or the connection's time is over.
        let mut scratch = [0; 16 * 1024];
        while self.pulse.is_ending() {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
