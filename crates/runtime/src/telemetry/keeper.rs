//! Keeps `LOG_DIR` small: compresses what is full, and removes what is old or too much. On a thread of its own, so that
//! nobody who logs waits for it.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::{Duration, SystemTime},
};

use flate2::{Compression, write::GzEncoder};

use super::{
    Sizes,
    files::{self, Form, LogFile},
};

/// Between two looks when nothing is full: others in the folder may have died.
const LOOK: Duration = Duration::from_secs(60);
/// What nobody has finished compressing for this long, nobody will.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// The thread's bell. The thread ends when it is dropped.
pub(super) struct Keeper(SyncSender<()>);

impl Keeper {
    /// Starts a thread that tidies the folder up, now and whenever it is woken.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(super) fn start(directory: &Path, sizes: Sizes) -> io::Result<Self> {
        let (bell, woken) = sync_channel(1);
        let directory = directory.to_owned();
        std::thread::Builder::new().name("log-keeper".into()).spawn(move || keep(&directory, sizes, &woken))?;
        Ok(Self(bell))
    }

    /// A bell that nobody hears.
    #[cfg(test)]
    pub(super) fn asleep() -> Self {
        Self(sync_channel(1).0)
    }

    /// Something is full.
    pub(super) fn wake(&self) {
        // When it is rung already, whoever hears it will see this too.
        let _ = self.0.try_send(());
    }
}

fn keep(directory: &Path, sizes: Sizes, woken: &Receiver<()>) {
    let mut failing = false;
    loop {
        match (tidy(directory, sizes), failing) {
            (Ok(()), _) => failing = false,
            (Err(error), false) => {
                failing = true;
                tracing::warn!(%error, "LOG_FILES_UNTIDY");
            }
            (Err(_), true) => {}
        }
        match woken.recv_timeout(LOOK) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Compresses every full file and a dead process's, and removes what is too much, before and in between. A file that
/// cannot be dealt with is in nobody's way; the first such error is with_time_limit.
pub(super) fn tidy(directory: &Path, sizes: Sizes) -> io::Result<()> {
    let mut result = make_room(directory, sizes);
    // Named by somebody else, it may be somebody else's who holds no lock.
    let full = files::list(directory)?.into_iter().filter(|file| file.form == Form::Lines && file.start.is_some());
    for file in full {
        let done = settle(&file.path).and_then(|()| make_room(directory, sizes));
        result = result.and(done);
    }
    result
}

/// Compresses a file that nobody writes to.
fn settle(path: &Path) -> io::Result<()> {
    let Some(held) = hold(path)? else { return Ok(()) };
    if held.metadata()?.len() == 0 { remove(path) } else { compress(&held, path) }
}

/// The file with its lock, unless somebody writes or compresses it, or has done so just now.
fn hold(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if file.try_lock().is_err() || file.metadata()?.nlink() == 0 {
        return Ok(None);
    }
    Ok(Some(file))
}

/// Makes the compressed file, whole and on disk, before the lines go.
fn compress(lines: &File, path: &Path) -> io::Result<()> {
    let (compressed, unfinished) = files::compressed(path);
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
    // Its age is that of its last line.
    file.set_modified(lines.metadata()?.modified()?)?;
    file.sync_all()
}

/// Removes what is too old, and the oldest as long as all is too much. Each file that is being written to counts as full,
/// so that there is room for what it becomes.
fn make_room(directory: &Path, sizes: Sizes) -> io::Result<()> {
    let (mut removable, mut total) = (Vec::new(), 0);
    for file in files::list(directory)? {
        if is_written_to(&file) {
            total += file.size.max(sizes.file);
        } else {
            total += file.size;
            removable.push(file);
        }
    }
    let mut result = Ok(());
    for LogFile { path, size, form, written, .. } in removable {
        let age = SystemTime::now().duration_since(written).unwrap_or_default();
        let kept = if form == Form::Unfinished { STALE.min(sizes.age) } else { sizes.age };
        if age > kept || (total > sizes.keep && form != Form::Unfinished) {
            let removed = remove(&path);
            if removed.is_ok() {
                total = total.saturating_sub(size);
            }
            result = result.and(removed);
        }
    }
    result
}

/// Whether a process has this open to write to it, or to compress it. One that cannot be asked about counts as such.
fn is_written_to(file: &LogFile) -> bool {
    if file.form != Form::Lines {
        return false;
    }
    match File::open(&file.path) {
        Ok(lines) => lines.try_lock().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Removes a file that somebody else may have removed.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
