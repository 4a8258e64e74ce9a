//! Writes the process's log lines to files in `LOG_DIR`. A new file begins each day, and when the current one is full.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use time::OffsetDateTime;

use super::{
    cleaner::{Cleaner, FileLimits},
    files,
};

/// The buffer is written when it has reached this size or no more lines wait, in bytes.
const BUFFER_SIZE: usize = 1 << 16;
/// The time between two attempts during an outage.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// An outage ends when nothing has failed for this long. On a full disk short lines often succeed while longer ones fail,
/// so a single success does not end it.
const RECOVERY_PERIOD: Duration = Duration::from_secs(10);

/// Writes lines to files; each call of [`Write::write`] is one line. A write never fails, since the caller could not handle
/// the error, and standard output has the line as well. Lines that could not be written are counted. A file never
/// contains a part of a line.
pub(super) struct FileWriter {
    directory: PathBuf,
    process: String,
    limits: FileLimits,
    now: fn() -> OffsetDateTime,
    buffer: Vec<u8>,
    /// The number of lines in the buffer.
    buffered_lines: u64,
    open: Option<OpenFile>,
    outage: Option<Outage>,
    lost_lines: Arc<AtomicU64>,
    cleaner: Cleaner,
}

/// The current file. Closing it releases its lock.
struct OpenFile {
    file: File,
    path: PathBuf,
    size: u64,
    day: i32,
}

/// A period in which writes fail, at least from time to time.
struct Outage {
    last_try: Instant,
    last_failure: Instant,
    /// Whether the last attempt failed.
    is_failing: bool,
    lost_lines: u64,
}

impl FileWriter {
    /// Creates the folder if it is missing, and a file in it.
    ///
    /// # Errors
    /// When the folder or the file cannot be created.
    pub(super) fn start(directory: &Path, process: &str, limits: FileLimits) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let cleaner = Cleaner::start(directory, limits)?;
        Self::with(directory, process, limits, cleaner, OffsetDateTime::now_utc)
    }

    fn with(
        directory: &Path,
        process: &str,
        limits: FileLimits,
        cleaner: Cleaner,
        now: fn() -> OffsetDateTime,
    ) -> io::Result<Self> {
        let open = create_file(directory, process, now)?;
        Ok(Self {
            directory: directory.to_owned(),
            process: process.to_owned(),
            limits,
            now,
            buffer: Vec::with_capacity(BUFFER_SIZE),
            buffered_lines: 0,
            open: Some(open),
            outage: None,
            lost_lines: Arc::default(),
            cleaner,
        })
    }

    /// The counter of lines that could not be written.
    pub(super) fn lost_lines(&self) -> Arc<AtomicU64> {
        self.lost_lines.clone()
    }

    /// Closes the current file if it has no room for `more` bytes, or if a new day has begun.
    fn rotate_if_needed(&mut self, more: usize) {
        let Some(open) = &self.open else { return };
        let filled = open.size + self.buffer.len() as u64;
        if (filled > 0 && filled + more as u64 > self.limits.file_size) || day(self.now) != open.day {
            self.write_buffer();
            self.open = None;
            self.cleaner.wake();
        }
    }

    /// Writes and clears the buffer; on an error counts its lines as lost.
    fn write_buffer(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        match self.try_write_buffer() {
            Ok(()) => {
                if let Some(outage) = &mut self.outage {
                    outage.is_failing = false;
                    if outage.last_failure.elapsed() >= RECOVERY_PERIOD {
                        tracing::warn!(lost_lines = outage.lost_lines, "log files are written again");
                        self.outage = None;
                    }
                }
            }
            Err(error) => {
                self.lost_lines.fetch_add(self.buffered_lines, Ordering::Relaxed);
                let now = Instant::now();
                let outage = self.outage.get_or_insert_with(|| {
                    // Logged once per outage; standard output has this line.
                    tracing::warn!(%error, "cannot write log files: their lines are lost");
                    Outage { last_try: now, last_failure: now, is_failing: true, lost_lines: 0 }
                });
                (outage.last_failure, outage.is_failing) = (now, true);
                outage.lost_lines += self.buffered_lines;
            }
        }
        self.buffer.clear();
        self.buffered_lines = 0;
    }

    fn try_write_buffer(&mut self) -> io::Result<()> {
        if let Some(outage) = self.outage.as_mut().filter(|outage| outage.is_failing) {
            if outage.last_try.elapsed() < RETRY_INTERVAL {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            outage.last_try = Instant::now();
        }
        // If the folder was removed, the open file still accepts lines, but has no name any more.
        if self.open.as_ref().is_some_and(|open| self.outage.is_some() && !open.path.exists()) {
            self.open = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                fs::create_dir_all(&self.directory)?;
                none.insert(create_file(&self.directory, &self.process, self.now)?)
            }
        };
        if let Err(error) = open.file.write_all(&self.buffer) {
            // A partial line would corrupt the next one. The file is in append mode, so it continues at its new end.
            if open.file.set_len(open.size).is_err() {
                self.open = None;
            }
            return Err(error);
        }
        open.size += self.buffer.len() as u64;
        Ok(())
    }
}

impl Write for FileWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.rotate_if_needed(line.len());
        if self.buffer.len() + line.len() > BUFFER_SIZE {
            self.write_buffer();
        }
        self.buffer.extend_from_slice(line);
        self.buffered_lines += 1;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_buffer();
        Ok(())
    }
}

/// Creates a file and locks it. A cleaner takes a file without a lock for one of a dead process.
fn create_file(directory: &Path, process: &str, now: fn() -> OffsetDateTime) -> io::Result<OpenFile> {
    const MAX_TRIES: usize = 100;
    let mut last_error = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..MAX_TRIES {
        let path = directory.join(files::new_name(process, now())?);
        match File::options().append(true).create_new(true).open(&path) {
            Ok(file) => match file.try_lock() {
                // On a file system without locks the cleaner cannot lock the file either, so it leaves it alone.
                Ok(()) | Err(TryLockError::Error(_)) => return Ok(OpenFile { file, path, size: 0, day: day(now) }),
                // A cleaner has locked the new file first. It removes the file, since it is empty.
                Err(TryLockError::WouldBlock) => {}
            },
            // Another file was created within the same microsecond.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last_error = error,
            Err(error) => return Err(error),
        }
    }
    Err(last_error)
}

fn day(now: fn() -> OffsetDateTime) -> i32 {
    now().to_julian_day()
}

#[cfg(test)]
mod tests;
