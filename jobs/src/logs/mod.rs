//! Log export: streams the log lines of a time range from the files of all processes that share `LOG_DIR`.

mod lines;
mod merge;
mod range;
mod sink;

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use flate2::{Compression, write::GzEncoder};
use futures_util::Stream;
use tokio::{runtime::Handle, sync::Semaphore};

pub use self::range::Range;
use self::{merge::Merge, range::format_time, sink::Sink};
use runtime::telemetry::{self, scope::Scope};

/// Maximum of concurrent exports: each uses one thread and a few MiB for open files.
const MAX_EXPORTS: usize = 4;

/// The log files of this system. Clones share the limit of exports.
#[derive(Clone, Debug)]
pub struct Logs {
    directory: Option<Arc<Path>>,
    permits: Arc<Semaphore>,
}

/// The format of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Plain JSON lines.
    #[default]
    Lines,
    /// JSON lines, compressed.
    Gzip,
}

/// Why an export is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportError {
    /// `LOG_DIR` is not set: logs go to standard output only.
    NoLogDir,
    /// The maximum number of exports is running.
    Busy,
}

impl Logs {
    /// Uses the log directory of the configuration.
    pub fn start(config: &telemetry::Config) -> Self {
        let directory = config.directory.as_ref().map(|directory| Arc::from(directory.as_path()));
        Self { directory, permits: Arc::new(Semaphore::new(MAX_EXPORTS)) }
    }

    /// Whether logs are written to files, and so can be exported.
    pub fn has_files(&self) -> bool {
        self.directory.is_some()
    }

    /// Streams the lines whose timestamps are in the range, in order, in chunks of about 64 KiB. Files are read as fast as
    /// the client reads, and the export stops after a minute in which the client has read nothing. Lines of the last
    /// moment may be missing. Broken lines are left out; the log entry of the export counts them.
    ///
    /// # Errors
    /// When `LOG_DIR` is not set, or too many exports are running.
    pub fn export(
        &self,
        range: Range,
        format: Format,
        who: String,
    ) -> Result<impl Stream<Item = io::Result<Vec<u8>>> + Send + use<>, ExportError> {
        let directory = self.directory.clone().ok_or(ExportError::NoLogDir)?;
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| ExportError::Busy)?;
        let (mut sink, stream) = Sink::new(Handle::current());
        let scope = Scope::current();
        let export = move || {
            let mut counts = ExportCounts::default();
            let written = match format {
                Format::Lines => write_lines(&directory, &range, &mut sink, &mut counts),
                Format::Gzip => {
                    let mut encoder = GzEncoder::new(&mut sink, Compression::fast());
                    let written = write_lines(&directory, &range, &mut encoder, &mut counts);
                    written.and_then(|()| encoder.try_finish())
                }
            };
            let result = written.and_then(|()| sink.flush());
            let error = result.as_ref().err().map(ToString::to_string);
            let (from, to) = (format_time(range.from), format_time(range.to));
            let ExportCounts { lines, broken, unread } = counts;
            let bytes = sink.sent_bytes();
            if result.is_ok() {
                sink.complete();
            }
            tracing::info!(who, from, to, lines, bytes, broken, unread, error, "logs exported");
            drop(permit);
        };
        tokio::task::spawn_blocking(move || match scope {
            Some(scope) => scope.run(export),
            None => export(),
        });
        Ok(stream)
    }
}

/// Counters of one export.
#[derive(Debug, Default)]
struct ExportCounts {
    /// Lines that were sent.
    lines: u64,
    /// Lines that are incomplete or are not log lines of Millrace.
    broken: u64,
    /// Files that could not be read to the end.
    unread: u64,
}

fn write_lines(directory: &Path, range: &Range, output: &mut impl Write, counts: &mut ExportCounts) -> io::Result<()> {
    let mut merge = Merge::open(directory, range)?;
    let written = merge.for_each(|line| {
        counts.lines += 1;
        output.write_all(line)?;
        output.write_all(b"\n")
    });
    (counts.broken, counts.unread) = (merge.broken, merge.unread);
    written
}

#[cfg(test)]
mod tests;
