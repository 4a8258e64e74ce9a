//! What is read goes to whoever asked, in pieces, and no faster than he takes it.

use std::{
    io::{self, Write},
    time::Duration,
};

use tokio::{runtime::Handle, sync::mpsc::Sender, time::timeout};

/// The size of a piece.
const PIECE: usize = 1 << 16;
/// Pieces that wait to be taken.
pub(super) const WAITING: usize = 4;
/// Whoever takes nothing for this long has gone, or holds a thread of ours for nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends what is written to it. For threads that may block.
pub(super) struct Sink {
    handle: Handle,
    sender: Sender<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    sent: u64,
}

impl Sink {
    pub(super) fn new(handle: Handle, sender: Sender<io::Result<Vec<u8>>>) -> Self {
        Self { handle, sender, piece: Vec::with_capacity(PIECE), sent: 0 }
    }

    /// How many bytes were taken.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Tells whoever waits for more that there will be none, and whether this was all.
    pub(super) fn end(self, ended: io::Result<()>) {
        if let Err(error) = ended {
            // Nobody waits any more, or is told at once: the channel is not full of what nobody takes.
            let _ = self.sender.try_send(Err(error));
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let size = piece.len() as u64;
        // The timer belongs to the runtime, so it is made within.
        let sending = async { timeout(PATIENCE, self.sender.send(Ok(piece))).await };
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
