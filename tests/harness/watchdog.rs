//! The watchdog: a process that stops the test server when no test process is left, also after Ctrl-C or `kill -9`.
//!
//! It is this test binary, started with a variable set and only the test below selected. So it needs no other program,
//! and takes the locks with the same code.

use super::cluster::{self, lock, open};
use embedded_postgres::RunningServer;
use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The variable that makes a process the watchdog: the folder to watch.
const FOLDER: &str = "MILLRACE_TEST_WATCHDOG";
/// How long the server outlives the last test process. nextest runs one process per test, with gaps between those that
/// need a database, and developers repeat test runs. A cold start costs 0.6 s, an idle server nothing.
const LINGER: Duration = Duration::from_secs(5);
/// How long a new watchdog tries to get its lock, and the pause between two tries.
const TRIES: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);
/// Where a root process moves folders that its server's account cannot reach. See `embedded_postgres`.
const RELOCATED: &str = "/var/lib/millrace";

/// Starts the watchdog unless one runs. The caller must hold the boot lock; a watchdog holds it while it exits.
#[expect(clippy::zombie_processes, reason = "the watchdog outlives this process")]
pub(super) fn ensure(base: &Path) {
    if open(base, "watchdog.lock").try_lock().is_err() {
        return;
    }
    let mut command = Command::new(std::env::current_exe().expect("the path of this test binary"));
    let test = concat!(module_path!(), "::runs_during_tests");
    let test = test.split_once("::").map_or(test, |(_, within_crate)| within_crate);
    command.args([test, "--exact", "--quiet", "--nocapture"]).env(FOLDER, base).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A separate process group protects it from Ctrl-C in the terminal, and from nextest, which kills a test's group.
    command.process_group(0).spawn().expect("the watchdog starts");
}

/// In a test run, asserts that a watchdog runs. In the watchdog process, watches until everything is removed.
#[tokio::test]
async fn runs_during_tests() {
    if let Some(base) = std::env::var_os(FOLDER) {
        return watch(&PathBuf::from(base));
    }
    let base = cluster::register_user();
    // The watchdog is a process, which takes some seconds to start on a busy machine.
    super::eventually("a watchdog holds its lock", Duration::from_secs(60), async || {
        open(base, "watchdog.lock").try_lock().is_err()
    })
    .await;
}

fn watch(base: &Path) {
    let watchdog = open(base, "watchdog.lock");
    // A process that only looks whether a watchdog runs holds the lock for a moment.
    let begun = Instant::now();
    while watchdog.try_lock().is_err() {
        if begun.elapsed() > TRIES {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    loop {
        // Acquired once the last user has exited. Released before the boot lock is taken: a new user holds the boot lock
        // while it waits for this one.
        drop(lock(base, "users.lock"));
        std::thread::sleep(LINGER);
        let boot = lock(base, "boot.lock");
        let users = open(base, "users.lock");
        if users.try_lock().is_ok() {
            remove_all(base);
            // Released in this order: a new user waits for the boot lock, and must then see that no watchdog runs.
            drop(watchdog);
            drop(users);
            drop(boot);
            return;
        }
    }
}

/// Removes everything except the lock files: another process may already have opened one of them.
fn remove_all(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().filter_map(Result::ok) {
        if !entry.file_name().to_string_lossy().ends_with(".lock") {
            stop_and_remove(&entry.path());
        }
    }
}

/// Stops every server in a folder and removes the folder, also if a root process had to move it to [`RELOCATED`].
pub(super) fn stop_and_remove(path: &Path) {
    if path.is_symlink() {
        if let Some(target) = fs::canonicalize(path).ok().filter(|target| target.starts_with(RELOCATED)) {
            stop_and_remove(&target);
        }
        let _ = fs::remove_file(path);
    } else if path.is_dir() {
        if let Some(server) = RunningServer::find(path)
            && let Err(error) = server.stop()
        {
            eprintln!("{error}");
        }
        // A data directory contains no other servers.
        if !path.join("PG_VERSION").exists() {
            let entries: Vec<PathBuf> =
                fs::read_dir(path).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect();
            entries.iter().for_each(|entry| stop_and_remove(entry));
        }
        let _ = fs::remove_dir_all(path);
    } else {
        let _ = fs::remove_file(path);
    }
}
