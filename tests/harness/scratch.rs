//! A folder for one test, removed after it with every server in it.

use super::{cluster, watchdog};
use std::{
    fs, io,
    ops::Deref,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// An empty folder; removed when dropped, or by the watchdog when the test process dies before.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one that every account may pass through.
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = cluster::enter().join(format!("scratch-{}-{number}", std::process::id()));
        // Left by a dead process of the same number.
        watchdog::sweep(&path);
        let made: io::Result<()> = fs::DirBuilder::new().mode(0o711).create(&path);
        made.unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Self(path)
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        watchdog::sweep(&self.0);
    }
}
