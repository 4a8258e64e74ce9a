//! The jars of the search engine and its compiled launcher, installed once per checkout.

use std::{
    ffi::OsString,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::harness::needs;

/// The list of the jars.
const POM: &str = include_str!("pom.xml");
/// The program that starts the engine.
const LAUNCHER: &str = include_str!("SearchEngine.java");

/// An installed engine.
pub(super) struct Jars {
    pub java: PathBuf,
    folder: PathBuf,
}

impl Jars {
    /// Installs the engine with Maven: 45 MB. If Java, Maven or Maven Central is missing, records this test as not run.
    pub(super) fn install() -> Option<Self> {
        let (java, compiler) = (needs::program("java")?, needs::program("javac")?);
        let maven = needs::program("mvn")?;
        let mut hash = DefaultHasher::new();
        (POM, LAUNCHER).hash(&mut hash);
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let jars = Self { java, folder: base.join(format!("search-engine-{:016x}", hash.finish())) };
        let lock = File::options().create(true).truncate(false).write(true).open(jars.folder.with_extension("lock"));
        // Another test process may be installing them. Rust opens files close-on-exec, so child processes do not hold the lock.
        let lock = lock.unwrap_or_else(|error| panic!("cannot open the lock of {}: {error}", jars.folder.display()));
        lock.lock().expect("a lock");
        let complete = jars.folder.join("complete");
        if !complete.exists() {
            fs::create_dir_all(&jars.folder).expect("a folder");
            fs::write(jars.folder.join("pom.xml"), POM).expect("a written file");
            fs::write(jars.folder.join("SearchEngine.java"), LAUNCHER).expect("a written file");
            let mut download = Command::new(maven);
            download.args(["--batch-mode", "--quiet", "dependency:copy-dependencies", "-DoutputDirectory=jars"]);
            if !jars.succeeds(&mut download) {
                return needs::missing("Maven Central");
            }
            let mut compile = Command::new(compiler);
            compile.arg("-cp").arg(jars.class_path()).args(["-d", ".", "SearchEngine.java"]);
            assert!(jars.succeeds(&mut compile), "the launcher of the search engine does not compile");
            File::create(complete).expect("a mark");
        }
        Some(jars)
    }

    /// The folder of the launcher, and every jar.
    pub(super) fn class_path(&self) -> OsString {
        let mut path = self.folder.clone().into_os_string();
        path.push(":");
        path.push(self.folder.join("jars/*"));
        path
    }

    /// Runs a program in the folder, with the real clock: certificates are not valid at every date.
    fn succeeds(&self, command: &mut Command) -> bool {
        command.current_dir(&self.folder).env_remove("LD_PRELOAD");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

/// The version of the engine.
pub(super) fn version() -> &'static str {
    let version = POM.split("<opensearch.version>").nth(1).and_then(|rest| rest.split('<').next());
    version.expect("a version")
}
