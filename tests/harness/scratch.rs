//! A temporary folder for one test, removed afterwards together with every server in it.

use super::{cluster, watchdog};
use std::{
    fs, io,
    ops::Deref,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// An empty folder. It is removed when this value is dropped, or by the watchdog if the test process dies first.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Creates a folder that every account may pass through.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = cluster::register_user().join(format!("scratch-{}-{number}", std::process::id()));
        // A dead process with the same id may have left one.
        watchdog::stop_and_remove(&path);
        let created: io::Result<()> = fs::DirBuilder::new().mode(0o711).create(&path);
        created.unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
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
        watchdog::stop_and_remove(&self.0);
    }
}
