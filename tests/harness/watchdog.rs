//! A process of its own that stops the test server when no test process is left, also after a Ctrl-C or a kill -9.
//!
//! It is this test binary once more, asked to run the one test below with a variable set: so it needs no program that a
//! machine may lack, and takes the same locks by the same code.

use super::cluster::{self, lock, open};
use jobs::boot::postgres::Running;
use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Set for the watchdog itself: the folder it watches.
const FOLDER: &str = "MILLRACE_TEST_WATCHDOG";
/// nextest runs a process per test, with gaps between those that need a database, and a developer runs the tests again
/// at once: a cold start costs 0.6 s, an idle server nothing.
const LINGER: Duration = Duration::from_secs(5);
/// Where a root process keeps what its server's account could not reach: see `jobs::boot::postgres`.
const RELOCATED: &str = "/var/lib/millrace";

/// Starts the watchdog unless there is one. The caller holds the boot lock, as a leaving watchdog does until it is gone.
#[expect(clippy::zombie_processes, reason = "nobody waits for it: it outlives us")]
pub(super) fn ensure(base: &Path) {
    if open(base, "watchdog.lock").try_lock().is_err() {
        return;
    }
    let mut command = Command::new(std::env::current_exe().expect("the path of this test binary"));
    let test = concat!(module_path!(), "::stands_behind_the_tests");
    let test = test.split_once("::").map_or(test, |(_, within_crate)| within_crate);
    command.args([test, "--exact", "--quiet", "--nocapture"]).env(FOLDER, base).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Its own process group, from its first moment: neither a Ctrl-C in the terminal nor nextest's killing of a test's
    // group reaches it.
    command.process_group(0).spawn().expect("the watchdog starts");
}

/// In a test run: there is a watchdog. As the watchdog: watches until everything is cleared away.
#[tokio::test]
async fn stands_behind_the_tests() {
    if let Some(base) = std::env::var_os(FOLDER) {
        return watch(&PathBuf::from(base));
    }
    let base = cluster::enter();
    super::eventually("a watchdog holds its lock", Duration::from_secs(10), async || {
        open(base, "watchdog.lock").try_lock().is_err()
    })
    .await;
}

fn watch(base: &Path) {
    let watchdog = open(base, "watchdog.lock");
    if watchdog.try_lock().is_err() {
        return;
    }
    loop {
        // Granted when the last user is gone. Given back before asking for the boot lock: a new user holds that one
        // while waiting for this one.
        drop(lock(base, "users.lock"));
        std::thread::sleep(LINGER);
        let boot = lock(base, "boot.lock");
        let users = open(base, "users.lock");
        if users.try_lock().is_ok() {
            clear(base);
            // In this order: a new user waits for the boot lock and must then see that there is no watchdog.
            drop(watchdog);
            drop(users);
            drop(boot);
            return;
        }
    }
}

/// Removes everything but the lock files: another process may have opened one of them already.
fn clear(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().filter_map(Result::ok) {
        if !entry.file_name().to_string_lossy().ends_with(".lock") {
            sweep(&entry.path());
        }
    }
}

/// Stops every server in a folder and removes the folder, also where a root process had to put it elsewhere.
pub(super) fn sweep(path: &Path) {
    if path.is_symlink() {
        if let Some(target) = fs::canonicalize(path).ok().filter(|target| target.starts_with(RELOCATED)) {
            sweep(&target);
        }
        let _ = fs::remove_file(path);
    } else if path.is_dir() {
        if let Some(server) = Running::find(path)
            && let Err(error) = server.stop()
        {
            eprintln!("{error}");
        }
        // What is inside a data directory is PostgreSQL's.
        if !path.join("PG_VERSION").exists() {
            let entries: Vec<PathBuf> =
                fs::read_dir(path).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect();
            entries.iter().for_each(|entry| sweep(entry));
        }
        let _ = fs::remove_dir_all(path);
    } else {
        let _ = fs::remove_file(path);
    }
}
