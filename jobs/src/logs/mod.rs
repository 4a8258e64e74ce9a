//! Logs read back: the lines of a range of time, out of all files of all processes that share `LOG_DIR`.
//!
//! | file | what |
//! |---|---|
//! | `lines` | one file's lines, torn ones told apart |
//! | `merge` | all files' lines in the order of their times |
//! | `sink` | what is read goes to whoever asked, as fast as he takes it |

mod lines;
mod merge;
mod sink;

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use flate2::{Compression, write::GzEncoder};
use futures_util::Stream;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use tokio::{runtime::Handle, sync::Semaphore};
use tracing::Span;

use self::{merge::Merge, sink::Sink};
use crate::boot::telemetry;

/// Exports at a time: each has a thread, and a few MiB of open files.
const AT_ONCE: usize = 4;

/// The logs of this system. Clones share everything.
#[derive(Clone, Debug)]
pub struct Logs {
    directory: Option<Arc<Path>>,
    places: Arc<Semaphore>,
}

/// From a time on, and up to before another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    from: OffsetDateTime,
    to: OffsetDateTime,
}

/// How lines are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// As they are.
    #[default]
    Lines,
    /// Compressed.
    Gzip,
}

/// Why there is no export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Logs go to standard output only.
    NotKept,
    /// As many as there can be are under way.
    Busy,
}

impl Logs {
    /// Reads where logs are written to.
    pub fn start(config: &telemetry::Config) -> Self {
        let directory = config.directory.as_ref().map(|directory| Arc::from(directory.as_path()));
        Self { directory, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Whether there are logs to read.
    pub fn are_kept(&self) -> bool {
        self.directory.is_some()
    }

    /// The lines whose time is in the range, in the order of their times, in pieces of some 64 KiB. They are read as they
    /// are taken, and reading stops when nobody takes them for a minute. What was logged less than a moment ago may be
    /// missing; what cannot be read as a line is left out, and counted in the log entry that every export leaves.
    ///
    /// # Errors
    /// Why there is none.
    pub fn export(
        &self,
        range: Range,
        format: Format,
        who: String,
    ) -> Result<impl Stream<Item = io::Result<Vec<u8>>> + Send + use<>, Refused> {
        let directory = self.directory.clone().ok_or(Refused::NotKept)?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| Refused::Busy)?;
        let (mut sink, stream) = Sink::new(Handle::current());
        let span = Span::current();
        tokio::task::spawn_blocking(move || {
            let _entered = span.enter();
            let mut found = Found::default();
            let read = match format {
                Format::Lines => send(&directory, &range, &mut sink, &mut found),
                Format::Gzip => {
                    let mut encoder = GzEncoder::new(&mut sink, Compression::fast());
                    let sent = send(&directory, &range, &mut encoder, &mut found);
                    sent.and_then(|()| encoder.try_finish())
                }
            };
            let ended = read.and_then(|()| sink.flush());
            let error = ended.as_ref().err().map(ToString::to_string);
            let (from, to) = (text(range.from), text(range.to));
            let Found { lines, broken, unread } = found;
            let bytes = sink.sent();
            if ended.is_ok() {
                sink.complete();
            }
            tracing::info!(who, from, to, lines, bytes, broken, unread, error, "LOGS_EXPORTED");
            drop(place);
        });
        Ok(stream)
    }
}

/// What was met on the way.
#[derive(Debug, Default)]
struct Found {
    /// Lines that were sent.
    lines: u64,
    /// Lines that were torn, or are none of ours.
    broken: u64,
    /// Files that could not be read to their ends.
    unread: u64,
}

fn send(directory: &Path, range: &Range, to: &mut impl Write, found: &mut Found) -> io::Result<()> {
    let mut merge = Merge::open(directory, range)?;
    let sent = merge.each(|line| {
        found.lines += 1;
        to.write_all(line)?;
        to.write_all(b"\n")
    });
    (found.broken, found.unread) = (merge.broken, merge.unread);
    sent
}

impl Range {
    /// `None` when it would end before it begins.
    pub fn new(from: OffsetDateTime, to: OffsetDateTime) -> Option<Self> {
        (from <= to).then_some(Self { from, to })
    }

    /// Where it begins.
    pub fn from(&self) -> OffsetDateTime {
        self.from
    }

    /// Where it has ended.
    pub fn to(&self) -> OffsetDateTime {
        self.to
    }
}

fn text(time: OffsetDateTime) -> String {
    time.to_offset(UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests;
