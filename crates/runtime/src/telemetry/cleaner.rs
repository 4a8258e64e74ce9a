//! Limits the size of `LOG_DIR`: compresses full files and removes old ones. Runs in its own thread, so that it never
//! delays a process that logs.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::{Duration, SystemTime},
};

use flate2::{Compression, write::GzEncoder};

use super::files::{self, FileState, LogFile};
use crate::config::EnvReader;

/// The time between two checks without a wake-up: other processes that write to the folder may have died.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// A compression that was not finished for this long was interrupted.
const STALE_AFTER: Duration = Duration::from_secs(24 * 3600);
const MEBIBYTE: u64 = 1 << 20;

/// The limits of the files in `LOG_DIR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// `LOG_FILE_MB`: the maximal size of a file in bytes.
    pub file_size: u64,
    /// `LOG_KEEP_MB`: the maximal size of all files together in bytes. Beyond it the oldest files are removed.
    pub total_size: u64,
    /// A file is removed this long after its last line.
    pub max_age: Duration,
}

impl FileLimits {
    pub(super) fn read(vars: &mut EnvReader) -> Self {
        let file = vars.number("LOG_FILE_MB", 64, 1..=4096);
        let total = vars.number("LOG_KEEP_MB", 1024, 4..=1 << 20);
        if total < 4 * file {
            vars.add_error("LOG_KEEP_MB", "must be at least four times LOG_FILE_MB, such as LOG_KEEP_MB=1024");
        }
        Self { file_size: file * MEBIBYTE, total_size: total * MEBIBYTE, max_age: Duration::from_secs(14 * 24 * 3600) }
    }
}

/// The handle of the cleaner thread. The thread ends when this is dropped.
pub(super) struct Cleaner(SyncSender<()>);

impl Cleaner {
    /// Starts a thread that cleans the folder, now, at each wake-up, and every minute.
    ///
    /// # Errors
    /// When the system cannot start the thread.
    pub(super) fn start(directory: &Path, limits: FileLimits) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(1);
        let directory = directory.to_owned();
        std::thread::Builder::new().name("log-cleaner".into()).spawn(move || run(&directory, limits, &receiver))?;
        Ok(Self(sender))
    }

    /// A handle without a thread.
    #[cfg(test)]
    pub(super) fn disconnected() -> Self {
        Self(sync_channel(1).0)
    }

    /// Wakes the thread, because a file is full.
    pub(super) fn wake(&self) {
        // A full channel is fine: the pending wake-up covers this file too.
        let _ = self.0.try_send(());
    }
}

fn run(directory: &Path, limits: FileLimits, receiver: &Receiver<()>) {
    let mut failing = false;
    loop {
        match (clean(directory, limits), failing) {
            (Ok(()), _) => failing = false,
            (Err(error), false) => {
                failing = true;
                tracing::warn!(%error, "cannot compress or remove log files");
            }
            (Err(_), true) => {}
        }
        match receiver.recv_timeout(CHECK_INTERVAL) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Compresses full files and files of dead processes. Removes files beyond the limits, first and after each compression.
/// A file that fails does not prevent the others; the first error is returned.
pub(super) fn clean(directory: &Path, limits: FileLimits) -> io::Result<()> {
    let mut result = remove_excess(directory, limits);
    // Files with foreign names may belong to programs that do not lock them.
    let full =
        files::list(directory)?.into_iter().filter(|file| file.state == FileState::Lines && file.start.is_some());
    for file in full {
        let done = compress_or_remove(&file.path).and_then(|()| remove_excess(directory, limits));
        result = result.and(done);
    }
    result
}

/// Compresses a file that no process writes to; removes it if it is empty.
fn compress_or_remove(path: &Path) -> io::Result<()> {
    let Some(lines) = open_unused(path)? else { return Ok(()) };
    if lines.metadata()?.len() == 0 { remove(path) } else { compress(&lines, path) }
}

/// Opens and locks a file. Returns `None` if a process writes or compresses it, or has just removed it.
fn open_unused(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if file.try_lock().is_err() || file.metadata()?.nlink() == 0 {
        return Ok(None);
    }
    Ok(Some(file))
}

/// Compresses a file. The original is removed only when the compressed file is complete and synced.
fn compress(lines: &File, path: &Path) -> io::Result<()> {
    let (compressed, unfinished) = files::compressed_paths(path);
    let written = write_compressed(lines, &unfinished).and_then(|()| fs::rename(&unfinished, &compressed));
    if let Err(error) = written {
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    remove(path)
}

fn write_compressed(lines: &File, to: &Path) -> io::Result<()> {
    let mut encoder = GzEncoder::new(BufWriter::new(File::create(to)?), Compression::default());
    io::copy(&mut BufReader::with_capacity(1 << 16, lines), &mut encoder)?;
    let file = encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    // The age of a file is the age of its last line.
    file.set_modified(lines.metadata()?.modified()?)?;
    file.sync_all()
}

/// Removes files that are too old, and the oldest files while the total size is too large. A file that is being written
/// counts with its maximal size, since it may grow to it.
fn remove_excess(directory: &Path, limits: FileLimits) -> io::Result<()> {
    let (mut removable, mut total) = (Vec::new(), 0);
    for file in files::list(directory)? {
        if is_in_use(&file) {
            total += file.size.max(limits.file_size);
        } else {
            total += file.size;
            removable.push(file);
        }
    }
    let mut result = Ok(());
    for LogFile { path, size, state, modified, .. } in removable {
        let age = SystemTime::now().duration_since(modified).unwrap_or_default();
        let is_unfinished = state == FileState::Unfinished;
        let max_age = if is_unfinished { STALE_AFTER.min(limits.max_age) } else { limits.max_age };
        if age > max_age || (total > limits.total_size && !is_unfinished) {
            let removed = remove(&path);
            if removed.is_ok() {
                total = total.saturating_sub(size);
            }
            result = result.and(removed);
        }
    }
    result
}

/// Whether a process writes or compresses this file. A file that cannot be opened counts as in use.
fn is_in_use(file: &LogFile) -> bool {
    if file.state != FileState::Lines {
        return false;
    }
    match File::open(&file.path) {
        Ok(lines) => lines.try_lock().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Removes a file, unless another process has removed it already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
