//! What is read goes to whoever asked, in pieces, and no faster than he takes it.

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

/// The size of a piece.
const PIECE: usize = 1 << 16;
/// Pieces that wait to be taken.
const WAITING: usize = 4;
/// Whoever takes nothing for this long has gone, or holds a thread of ours for nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends what is written to it. For threads that may block.
pub(super) struct Sink {
    handle: Handle,
    sender: mpsc::Sender<Vec<u8>>,
    complete: Arc<AtomicBool>,
    piece: Vec<u8>,
    sent: u64,
}

impl Sink {
    /// A sink and what comes out of it. The stream ends with an error unless all of it is there: a part must not look
    /// like the whole, whatever ended the thread that wrote.
    pub(super) fn new(handle: Handle) -> (Self, impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let complete = Arc::new(AtomicBool::new(false));
        let stream = stream::unfold(Some((receiver, complete.clone())), |state| async {
            let (mut receiver, complete) = state?;
            match receiver.recv().await {
                Some(piece) => Some((Ok(piece), Some((receiver, complete)))),
                None if complete.load(Ordering::Acquire) => None,
                None => Some((Err(io::Error::other("the export has ended early")), None)),
            }
        });
        (Self { handle, sender, complete, piece: Vec::with_capacity(PIECE), sent: 0 }, stream)
    }

    /// How many bytes were taken.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Says that this was all. Without it, whoever reads is told that it was not.
    pub(super) fn complete(self) {
        self.complete.store(true, Ordering::Release);
    }

    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let size = piece.len() as u64;
        // The timer belongs to the runtime, so it is made within.
        let sending = async { timeout(PATIENCE, self.sender.send(piece)).await };
        match self.handle.block_on(sending) {
            Ok(Ok(())) => {
                self.sent += size;
                Ok(())
            }
            Ok(Err(_gone)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone")),
            Err(_elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing any more")),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.piece.is_empty() && self.piece.len() + bytes.len() > PIECE {
            self.send()?;
        }
        self.piece.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
