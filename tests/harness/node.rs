//! npm packages for tests, installed once per checkout.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::needs;

/// Returns a folder with these packages, such as `typescript@7.0.2`, in its `node_modules`. Their scripts are not run.
/// If npm or its registry is missing, records this test as not run.
pub(crate) fn packages(names: &[&str]) -> Option<PathBuf> {
    let npm = needs::program("npm")?;
    let mut hash = DefaultHasher::new();
    names.hash(&mut hash);
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = base.join(format!("npm-{:016x}", hash.finish()));
    let lock = File::options().create(true).truncate(false).write(true).open(folder.with_extension("lock"));
    // Another test process may be installing them. Rust opens files close-on-exec, so child processes do not hold the lock.
    let lock = lock.unwrap_or_else(|error| panic!("cannot open the lock of {}: {error}", folder.display()));
    lock.lock().expect("a lock");
    let complete = folder.join("complete");
    if !complete.exists() {
        fs::create_dir_all(&folder).expect("a folder");
        let mut install = Command::new(npm);
        install.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--prefix"]);
        install.arg(&folder).args(names).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if !install.status().is_ok_and(|status| status.success()) {
            return needs::missing("npm's registry");
        }
        File::create(complete).expect("a mark");
    }
    Some(folder)
}
