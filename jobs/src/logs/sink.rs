//! A writer that sends bytes to a client as a stream of chunks, with backpressure.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{runtime::Handle, sync::mpsc, time::timeout};

/// The size of a chunk in bytes.
const CHUNK_BYTES: usize = 1 << 16;
/// Chunks that may wait for the client.
const MAX_WAITING: usize = 4;
/// A client that reads nothing for this long is disconnected: it would occupy a thread for no use.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The writing end. It blocks, so it must not be used on a thread of the runtime.
pub(super) struct Sink {
    handle: Handle,
    sender: mpsc::Sender<Vec<u8>>,
    complete: Arc<AtomicBool>,
    chunk: Vec<u8>,
    sent_bytes: u64,
}

impl Sink {
    /// Creates a sink and its stream. The stream ends with an error unless [`Self::complete`] was called: a partial export
    /// must not look complete, even if the writing thread panics.
    pub(super) fn new(handle: Handle) -> (Self, impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let complete = Arc::new(AtomicBool::new(false));
        let stream = stream::unfold(Some((receiver, complete.clone())), |state| async {
            let (mut receiver, complete) = state?;
            match receiver.recv().await {
                Some(chunk) => Some((Ok(chunk), Some((receiver, complete)))),
                None if complete.load(Ordering::Acquire) => None,
                None => Some((Err(io::Error::other("the export ended early")), None)),
            }
        });
        (Self { handle, sender, complete, chunk: Vec::with_capacity(CHUNK_BYTES), sent_bytes: 0 }, stream)
    }

    /// Bytes that were sent so far.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Marks the export as complete. Without this call the stream ends with an error.
    pub(super) fn complete(self) {
        self.complete.store(true, Ordering::Release);
    }

    fn send(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        let size = chunk.len() as u64;
        // The timer must be created inside the runtime, so inside the async block.
        let sending = async { timeout(STALL_TIMEOUT, self.sender.send(chunk)).await };
        match self.handle.block_on(sending) {
            Ok(Ok(())) => {
                self.sent_bytes += size;
                Ok(())
            }
            Ok(Err(_closed)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client has disconnected")),
            Err(_elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client has stopped reading")),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.chunk.is_empty() && self.chunk.len() + bytes.len() > CHUNK_BYTES {
            self.send()?;
        }
        self.chunk.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
