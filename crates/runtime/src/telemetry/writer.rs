//! Writes a process's lines to files in `LOG_DIR`: a new one each day, and whenever one is full.

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

use super::{Sizes, files, keeper::Keeper};

/// Lines are gathered up to this size, as long as there are more.
const GATHERED: usize = 1 << 16;
/// Between two tries when nothing can be written.
const RETRY: Duration = Duration::from_secs(1);
/// How long nothing may fail before trouble counts as over: on a full disk a short line may find room, and the next one
/// may not, all the time.
const SETTLED: Duration = Duration::from_secs(10);

/// Writes lines. Each call of [`Write::write`] is a line; none of them fails: whoever logs could do nothing about it, and
/// standard output has the line as well. Lines that could not be written are counted, and a file never has half of one.
pub(super) struct Writer {
    directory: PathBuf,
    process: String,
    sizes: Sizes,
    now: fn() -> OffsetDateTime,
    gathered: Vec<u8>,
    /// How many lines are in there.
    waiting: u64,
    open: Option<Open>,
    trouble: Option<Trouble>,
    lost: Arc<AtomicU64>,
    keeper: Keeper,
}

/// The file that is being written to. Its lock goes with it.
struct Open {
    file: File,
    path: PathBuf,
    size: u64,
    day: i32,
}

struct Trouble {
    /// When it was last tried to write.
    tried: Instant,
    /// When that failed last, and whether it was the last try.
    failed: Instant,
    failing: bool,
    lost: u64,
}

impl Writer {
    /// Begins a file in the folder, which is made if it is not there.
    ///
    /// # Errors
    /// Why nothing can be written there.
    pub(super) fn start(directory: &Path, process: &str, sizes: Sizes) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let keeper = Keeper::start(directory, sizes)?;
        Self::with(directory, process, sizes, keeper, OffsetDateTime::now_utc)
    }

    fn with(
        directory: &Path,
        process: &str,
        sizes: Sizes,
        keeper: Keeper,
        now: fn() -> OffsetDateTime,
    ) -> io::Result<Self> {
        let open = begin(directory, process, now)?;
        Ok(Self {
            directory: directory.to_owned(),
            process: process.to_owned(),
            sizes,
            now,
            gathered: Vec::with_capacity(GATHERED),
            waiting: 0,
            open: Some(open),
            trouble: None,
            lost: Arc::default(),
            keeper,
        })
    }

    /// Counts the lines that could not be written.
    pub(super) fn lost(&self) -> Arc<AtomicU64> {
        self.lost.clone()
    }

    /// Ends a file that has no room for `more`, or is of another day.
    fn turn(&mut self, more: usize) {
        let Some(open) = &self.open else { return };
        let filled = open.size + self.gathered.len() as u64;
        if (filled > 0 && filled + more as u64 > self.sizes.file) || day(self.now) != open.day {
            self.put();
            self.open = None;
            self.keeper.wake();
        }
    }

    /// Writes what is gathered.
    fn put(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        match self.store() {
            Ok(()) => {
                if let Some(trouble) = &mut self.trouble {
                    trouble.failing = false;
                    if trouble.failed.elapsed() >= SETTLED {
                        tracing::warn!(lost = trouble.lost, "LOG_FILES_BACK");
                        self.trouble = None;
                    }
                }
            }
            Err(error) => {
                self.lost.fetch_add(self.waiting, Ordering::Relaxed);
                let now = Instant::now();
                let trouble = self.trouble.get_or_insert_with(|| {
                    // Once: it is on standard output.
                    tracing::warn!(%error, "LOG_FILES_BROKEN");
                    Trouble { tried: now, failed: now, failing: true, lost: 0 }
                });
                (trouble.failed, trouble.failing) = (now, true);
                trouble.lost += self.waiting;
            }
        }
        self.gathered.clear();
        self.waiting = 0;
    }

    fn store(&mut self) -> io::Result<()> {
        if let Some(trouble) = self.trouble.as_mut().filter(|trouble| trouble.failing) {
            if trouble.tried.elapsed() < RETRY {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            trouble.tried = Instant::now();
        }
        // A folder that was removed takes its open files with it, unseen.
        if self.open.as_ref().is_some_and(|open| self.trouble.is_some() && !open.path.exists()) {
            self.open = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                fs::create_dir_all(&self.directory)?;
                none.insert(begin(&self.directory, &self.process, self.now)?)
            }
        };
        if let Err(error) = open.file.write_all(&self.gathered) {
            // Half a line would spoil the one after it. Appended to, the file goes on at its new end.
            if open.file.set_len(open.size).is_err() {
                self.open = None;
            }
            return Err(error);
        }
        open.size += self.gathered.len() as u64;
        Ok(())
    }
}

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.turn(line.len());
        if self.gathered.len() + line.len() > GATHERED {
            self.put();
        }
        self.gathered.extend_from_slice(line);
        self.waiting += 1;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.put();
        Ok(())
    }
}

/// Begins a file, locked: whoever tidies up takes one that nobody holds for a dead process's.
fn begin(directory: &Path, process: &str, now: fn() -> OffsetDateTime) -> io::Result<Open> {
    const TRIES: usize = 100;
    let mut wrong = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..TRIES {
        let path = directory.join(files::name(process, now())?);
        match File::options().append(true).create_new(true).open(&path) {
            Ok(file) => match file.try_lock() {
                // Where the file system has no locks, nobody compresses anything.
                Ok(()) | Err(TryLockError::Error(_)) => return Ok(Open { file, path, size: 0, day: day(now) }),
                // Somebody who tidies up was quicker, and removes it: it is empty.
                Err(TryLockError::WouldBlock) => {}
            },
            // Begun within the same microsecond.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => wrong = error,
            Err(error) => return Err(error),
        }
    }
    Err(wrong)
}

fn day(now: fn() -> OffsetDateTime) -> i32 {
    now().to_julian_day()
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
