//! The queue of log lines: all threads append to it, and one thread writes them out, many at a time.
//!
//! A write per line in the thread that logs took 25 % of a busy worker's time. A message per line to the writing thread cost an
//! allocation, which the other thread freed, and often a wake-up. Here the lines share one buffer, and the writing thread
//! pauses before it takes them: it is woken at most once in 2 ms, and writes what has arrived by then in one piece.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// How many lines may wait, including those that are being written. If the reader hangs, later lines are lost, but no request
/// waits.
const MAX_LINES: usize = 16_384;
/// The time from the first line to its write.
const PAUSE: Duration = Duration::from_millis(2);
/// A buffer that a burst has made larger than this is freed after its write, in bytes.
const MAX_KEPT_BUFFER: usize = 1 << 20;
/// How long the end of the process waits for the last write.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Whole lines, in one buffer.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    /// The end of each line in `text`.
    ends: Vec<usize>,
}

impl Lines {
    /// All lines in one piece.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The lines one by one.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(move |(start, end)| &self.text[*start..*end])
    }

    fn push(&mut self, line: &[u8]) {
        self.text.extend_from_slice(line);
        self.ends.push(self.text.len());
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    /// Removes all lines, and keeps the buffer for the next ones if it is not too large.
    fn clear(&mut self) {
        if self.text.capacity() > MAX_KEPT_BUFFER {
            *self = Self::default();
        }
        self.text.clear();
        self.ends.clear();
    }
}

/// The appending side of the queue. Each call of [`io::Write::write`] is one line. Clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct LineQueue(Arc<Shared>);

/// Drop waits until the last lines are written, for at most a second.
#[derive(Debug)]
pub(super) struct WriterGuard(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when the idle writer gets a line, and at the close.
    wake: Condvar,
    /// Notified when the writer has ended.
    ended: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: Lines,
    /// The number of lines that are being written.
    in_write: usize,
    /// Whether the writer waits for a line.
    is_idle: bool,
    is_closed: bool,
    has_ended: bool,
}

impl LineQueue {
    /// Starts the thread that passes the lines to `write`. It ends after the last line when the guard is dropped.
    ///
    /// # Errors
    /// When the system cannot start the thread.
    pub(super) fn start(mut write: impl FnMut(&Lines) + Send + 'static) -> io::Result<(Self, WriterGuard)> {
        let shared = Arc::<Shared>::default();
        let writer = shared.clone();
        thread::Builder::new().name("log-writer".into()).spawn(move || {
            let mut lines = Lines::default();
            while writer.take(&mut lines) {
                write(&lines);
                lines.clear();
            }
            writer.lock().has_ended = true;
            writer.ended.notify_all();
        })?;
        Ok((Self(shared.clone()), WriterGuard(shared)))
    }

    /// The number of lines that were lost because too many waited.
    pub(super) fn dropped_lines(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.is_closed || state.waiting.len() + state.in_write >= MAX_LINES {
            drop(state);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.push(line);
        if std::mem::take(&mut state.is_idle) {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Exchanges the waiting lines for `lines`, whose own are written and cleared. Waits for a line, and then for those that
    /// follow it closely. Returns `false` when the queue is closed and empty.
    fn take(&self, lines: &mut Lines) -> bool {
        let mut state = self.lock();
        state.in_write = 0;
        while state.waiting.len() == 0 {
            if state.is_closed {
                return false;
            }
            state.is_idle = true;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_idle = false;
        if !state.is_closed {
            drop(state);
            thread::sleep(PAUSE);
            state = self.lock();
        }
        std::mem::swap(&mut state.waiting, lines);
        state.in_write = lines.len();
        true
    }
}

impl io::Write for &LineQueue {
    /// Never fails, since a thread that logs could not handle the error.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        self.0.wake.notify_one();
        drop(self.0.ended.wait_timeout_while(state, CLOSE_TIMEOUT, |state| !state.has_ended));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        sync::mpsc::{self, Receiver, Sender},
        time::Instant,
    };

    use super::*;

    /// A queue whose writer waits for a permit before each write, and the lines of each write.
    fn gated() -> (LineQueue, WriterGuard, Sender<()>, Receiver<Vec<String>>) {
        let (permits, gate) = mpsc::channel();
        let (sender, written) = mpsc::channel();
        let (queue, guard) = LineQueue::start(move |lines| {
            gate.recv().expect("a permit");
            assert_eq!(lines.iter().collect::<Vec<_>>().concat(), lines.text());
            let text = |line: &[u8]| String::from_utf8(line.to_vec()).expect("UTF-8");
            sender.send(lines.iter().map(text).collect()).expect("a receiver");
        })
        .expect("a thread");
        (queue, guard, permits, written)
    }

    fn append(mut queue: &LineQueue, line: &str) {
        queue.write_all(line.as_bytes()).expect("infallible");
    }

    fn wait_until_in_write(queue: &LineQueue, lines: usize) {
        while queue.0.lock().in_write != lines {
            thread::yield_now();
        }
    }

    #[test]
    fn lines_that_arrive_during_a_write_share_the_next_one() {
        let (queue, guard, permits, written) = gated();
        append(&queue, "first\n");
        wait_until_in_write(&queue, 1);
        for line in ["second\n", "with\na break\n"] {
            append(&queue, line);
        }
        permits.send(()).expect("a writer");
        permits.send(()).expect("a writer");
        assert_eq!(written.recv().expect("a write"), ["first\n"]);
        assert_eq!(written.recv().expect("a write"), ["second\n", "with\na break\n"]);
        drop(guard);
        append(&queue, "too late\n");
        assert_eq!(queue.dropped_lines(), 1);
    }

    #[test]
    fn the_guard_waits_for_the_last_lines() {
        let (queue, guard, permits, written) = gated();
        append(&queue, "last\n");
        permits.send(()).expect("a writer");
        let begun = Instant::now();
        drop(guard);
        let waited = begun.elapsed();
        // On a machine that stalls, the wait may end before the writer has run. Then the lines come later.
        let lines = written.try_recv().or_else(|_| {
            assert!(waited >= CLOSE_TIMEOUT, "the guard has not waited");
            written.recv_timeout(60 * CLOSE_TIMEOUT)
        });
        assert_eq!(lines.expect("a write"), ["last\n"]);
    }

    #[test]
    fn a_hanging_reader_costs_the_lines_beyond_the_limit() {
        let (queue, guard, permits, written) = gated();
        append(&queue, "first\n");
        wait_until_in_write(&queue, 1);
        for _ in 0..MAX_LINES {
            append(&queue, "next\n");
        }
        assert_eq!(queue.dropped_lines(), 1, "one is being written, and the others wait");
        permits.send(()).expect("a writer");
        permits.send(()).expect("a writer");
        drop(guard);
        assert_eq!(
            [written.recv().expect("a write").len(), written.recv().expect("a write").len()],
            [1, MAX_LINES - 1]
        );
        assert_eq!(queue.dropped_lines(), 1);
    }
}
