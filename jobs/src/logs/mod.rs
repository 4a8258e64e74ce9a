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
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportError {
    /// `LOG_DIR` is not set: logs go to standard output only.
    NoLogDir,
    /// The maximum number of exports is running.
    Busy,
    /// `LOG_DIR` cannot be read, for this reason.
    Unreadable(String),
}

/// An export whose files are listed, before its first line is read. It counts as running until it is dropped or its stream
/// has ended.
pub struct Export {
    range: Range,
    merge: Merge,
    permit: OwnedSemaphorePermit,
}

impl Logs {
    /// Uses the log directory of the configuration.
    pub fn start(config: &telemetry::Config) -> Self {
        let directory = config.directory.as_ref().map(|directory| Arc::from(directory.as_path()));
        Self { directory, permits: Arc::new(Semaphore::new(MAX_EXPORTS)) }
    }

    /// Lists the files of an export of the lines whose timestamps are in the range.
    ///
    /// # Errors
    /// When `LOG_DIR` is not set or cannot be read, or too many exports are running.
    pub async fn open(&self, range: Range) -> Result<Export, ExportError> {
        let directory = self.directory.clone().ok_or(ExportError::NoLogDir)?;
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| ExportError::Busy)?;
        let listed = tokio::task::spawn_blocking(move || match Merge::open(&directory, &range) {
            Ok(merge) => Ok(Export { range, merge, permit }),
            Err(error) => Err(format!("{}: {error}", directory.display())),
        });
        listed.await.unwrap_or_else(|error| Err(error.to_string())).map_err(ExportError::Unreadable)
    }
}

impl Export {
    /// Streams the lines, in order, in chunks of about 64 KiB. Files are read as fast as the client reads, and the export
    /// stops after a minute in which the client has read nothing. Lines of the last moment may be missing. Broken lines are
    /// left out; the log entry of the export counts them.
    pub fn stream(self, format: Format, who: String) -> impl Stream<Item = io::Result<Vec<u8>>> + Send + use<> {
        let Self { range, mut merge, permit } = self;
        let (mut sink, stream) = Sink::new(Handle::current());
        let scope = Scope::current();
        let export = move || {
            let mut lines = 0;
            let written = match format {
                Format::Lines => write_lines(&mut merge, &mut sink, &mut lines),
                Format::Gzip => {
                    let mut encoder = GzEncoder::new(&mut sink, Compression::fast());
                    let written = write_lines(&mut merge, &mut encoder, &mut lines);
                    written.and_then(|()| encoder.try_finish())
                }
            };
            let result = written.and_then(|()| sink.flush());
            let error = result.as_ref().err().map(ToString::to_string);
            let (from, to) = (format_time(range.from), format_time(range.to));
            let Merge { broken, unread, .. } = merge;
            let bytes = sink.sent_bytes();
            if result.is_ok() {
                sink.complete();
            }
            // An error is the client's: it has disconnected or stopped reading.
            tracing::info!(who, from, to, lines, bytes, broken, unread, error, "logs exported");
            drop(permit);
        };
        tokio::task::spawn_blocking(move || match scope {
            Some(scope) => scope.run(export),
            None => export(),
        });
        stream
    }
}

/// Writes every line of the range, and counts the written ones.
fn write_lines(merge: &mut Merge, output: &mut impl Write, lines: &mut u64) -> io::Result<()> {
    merge.for_each(|line| {
        *lines += 1;
        output.write_all(line)?;
        output.write_all(b"\n")
    })
}

#[cfg(test)]
mod tests;
