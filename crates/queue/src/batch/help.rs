//! When further writers help the first one of a [`Batch`](super::Batch): when many calls wait, or when its write takes long.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

/// A first writer whose write takes this long no longer writes alone: it may wait for a lock, or for a slow disk.
const SLOW: Duration = Duration::from_millis(10);

/// When further writers help the first one.
pub(super) struct Help {
    /// How many calls must wait; as in the limits of the batch.
    from: usize,
    /// Whether the write of the first writer takes long.
    is_slow: AtomicBool,
    /// Notified when help is needed, and when no more calls will come.
    signal: Notify,
}

impl Help {
    pub(super) fn new(from: usize) -> Self {
        Self { from, is_slow: AtomicBool::new(false), signal: Notify::new() }
    }

    /// Whether further writers are needed for the calls that wait.
    pub(super) fn is_needed(&self, waiting: usize) -> bool {
        waiting >= self.from || waiting > 0 && self.is_slow.load(Ordering::SeqCst)
    }

    /// Wakes a further writer if it is needed.
    pub(super) fn notify(&self, waiting: usize) {
        if self.is_needed(waiting) {
            self.signal.notify_one();
        }
    }

    /// Waits until a further writer may be needed, or must end.
    pub(super) async fn wait(&self) {
        self.signal.notified().await;
    }

    /// Wakes a further writer, because no more calls will come. Each of them wakes the next one.
    pub(super) fn end(&self) {
        self.signal.notify_one();
    }

    /// Runs a write of the first writer. While it takes long, further writers take every call.
    pub(super) async fn during<T>(&self, write: impl Future<Output = T>) -> T {
        tokio::pin!(write);
        if let Ok(written) = timeout(SLOW, &mut write).await {
            return written;
        }
        self.is_slow.store(true, Ordering::SeqCst);
        self.signal.notify_one();
        let written = write.await;
        self.is_slow.store(false, Ordering::SeqCst);
        written
    }
}
