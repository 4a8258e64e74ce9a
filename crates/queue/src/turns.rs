//! When a batch is written next to another one.
//!
//! Each batch has fixed costs, such as its commit. If it began with the first call, the writers would share the calls among many
//! small batches. So next to another batch it begins only when its share of the calls waits. 64 callers of the API got 18,000
//! durable responses per second instead of 13,200.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::sync::{Notify, mpsc};

/// As many calls as this need not wait for more of them: a larger batch costs hardly less for each.
const ENOUGH: usize = 32;
/// A batch that takes longer than this may wait for a lock or a slow disk, and delays no other.
pub(crate) const SLOW: Duration = Duration::from_millis(10);
/// In how many batches the peak of calls falls to about a third.
const PEAK_BATCHES: usize = 256;

/// The turns of the writers of a batch.
pub(crate) struct Turns {
    writers: usize,
    /// The most calls that a batch next to another one waits for.
    enough: usize,
    /// Calls that are being written.
    writing: AtomicUsize,
    /// The most calls that waited or were written at once, times [`PEAK_BATCHES`]. It falls with each batch.
    peak: AtomicUsize,
    /// Notified when enough calls wait, and when a batch has been written.
    changed: Notify,
}

impl Turns {
    /// The turns of so many writers, whose batches have at most `size` calls.
    pub(crate) fn new(writers: usize, size: usize) -> Self {
        Self {
            writers,
            enough: ENOUGH.min(size),
            writing: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    /// Whether so many waiting calls are enough for a batch next to another one.
    ///
    /// Of two writers, each has a share of two thirds of the peak. With the half, 64 callers had batches of less than 32, because not
    /// all of them call at the same moment.
    fn is_enough(&self, waiting: usize) -> bool {
        let share = self.peak.load(Ordering::Relaxed) * 2 / (self.writers + 1) / PEAK_BATCHES;
        waiting >= share.min(self.enough).max(1)
    }

    /// A call was added, and so many wait now.
    pub(crate) fn added(&self, waiting: usize) {
        if self.writers > 1 && self.is_enough(waiting) {
            self.changed.notify_one();
        }
    }

    /// Waits until a batch may be written: no other is, enough calls wait, or the other one is slow.
    pub(crate) async fn wait<C>(&self, calls: &mpsc::Receiver<C>) {
        let is_early = || self.writing.load(Ordering::SeqCst) > 0 && !self.is_enough(calls.len());
        if is_early() {
            let changes = async {
                while is_early() {
                    self.changed.notified().await;
                }
            };
            let _ = tokio::time::timeout(SLOW, changes).await;
        }
    }

    /// A batch of so many calls begins, while others wait.
    pub(crate) fn begin(&self, calls: usize, waiting: usize) {
        let writing = self.writing.fetch_add(calls, Ordering::SeqCst);
        let peak = self.peak.load(Ordering::Relaxed);
        let peak = (peak - peak / PEAK_BATCHES).max((calls + waiting + writing) * PEAK_BATCHES);
        // Only the writer that takes calls stores it, one at a time.
        self.peak.store(peak, Ordering::Relaxed);
    }

    /// A batch of so many calls has been written.
    pub(crate) fn end(&self, calls: usize) {
        self.writing.fetch_sub(calls, Ordering::SeqCst);
        self.changed.notify_one();
    }
}
