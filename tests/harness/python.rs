//! PyPI packages for tests, installed once per checkout.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::needs;

/// A folder with these packages, such as `honcho==2.0.0`.
pub(crate) struct Packages(PathBuf);

/// Installs the packages. If Python, pip or PyPI is missing, records this test as not run.
pub(crate) fn packages(names: &[&str]) -> Option<Packages> {
    let python = needs::program("python3")?;
    let mut hash = DefaultHasher::new();
    names.hash(&mut hash);
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = base.join(format!("pip-{:016x}", hash.finish()));
    let lock = File::options().create(true).truncate(false).write(true).open(folder.with_extension("lock"));
    // Another test process may be installing them. Rust opens files close-on-exec, so child processes do not hold the lock.
    let lock = lock.unwrap_or_else(|error| panic!("cannot open the lock of {}: {error}", folder.display()));
    lock.lock().expect("a lock");
    let complete = folder.join("complete");
    if !complete.exists() {
        let pip = |arguments: &[&str]| {
            let mut pip = Command::new(&python);
            pip.args(["-m", "pip"]).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            pip
        };
        if !pip(&["--version"]).status().is_ok_and(|status| status.success()) {
            return needs::missing("pip");
        }
        // Removes the files of an interrupted installation. Installs into a plain folder, not a virtual environment,
        // because Debian ships `venv` in a separate package.
        let _ = fs::remove_dir_all(&folder);
        let mut install = pip(&["install", "--quiet", "--only-binary", ":all:", "--target"]);
        if !install.arg(&folder).args(names).status().is_ok_and(|status| status.success()) {
            return needs::missing("PyPI");
        }
        File::create(complete).expect("a mark");
    }
    Some(Packages(folder))
}

impl Packages {
    /// Returns a command for a program of the packages.
    pub(crate) fn program(&self, name: &str) -> Command {
        self.with_path(Command::new(self.0.join("bin").join(name)))
    }

    /// Returns a command for a Python that can import the packages.
    pub(crate) fn python(&self) -> Command {
        self.with_path(Command::new("python3"))
    }

    /// Adds the packages and their programs, which some of them call, to the command's environment.
    fn with_path(&self, mut command: Command) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.0.join("bin")).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders).expect("a path")).env("PYTHONPATH", &self.0);
        command
    }

    /// The variable for a program whose environment the caller sets.
    pub(crate) fn variable(&self) -> (&'static str, &str) {
        ("PYTHONPATH", self.0.to_str().expect("a path in UTF-8"))
    }
}
