//! One private PostgreSQL per checkout, shared by all test processes and stopped after the last one.
//!
//! Three lock files coordinate this. They are opened close-on-exec, so that no server inherits them:
//! - `boot.lock` (exclusive) is held while the server starts or stops.
//! - `users.lock` (shared) is held by every test process until it ends in any way.
//! - `watchdog.lock` (exclusive) is held by the [watchdog](super::watchdog), which stops the server.

use super::{clock, watchdog};
use embedded_postgres::{Cluster, RunningServer, Search, Settings};
use nix::{sys::statvfs::statvfs, unistd::geteuid};
use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};
use tokio::sync::OnceCell;

/// Creating a database takes 11 ms in memory, and 50 to 390 ms on a throttled disk.
const MEMORY: &str = "/dev/shm";
/// A database takes 8 MB until its test has ended. Docker's default of 64 MB is less than one cluster needs.
const MEMORY_NEEDED: u64 = 1 << 30;
/// Two test threads with pools of ten need 20; nextest on a large machine needs more.
const MAX_CONNECTIONS: u16 = 500;

/// Returns the server for this process's tests, and starts it if necessary.
pub(crate) async fn server() -> &'static RunningServer {
    static SERVER: OnceCell<RunningServer> = OnceCell::const_new();
    SERVER.get_or_init(start).await
}

/// The settings of a server of the tests: without fsync, with the programs that `PG_BIN_DIR` names, and with the clock of
/// this process.
pub(crate) fn settings(directory: &Path) -> Settings {
    Settings {
        durable: false,
        search: std::env::var("PG_BIN_DIR").map(|value| Search::parse(&value)).unwrap_or_default(),
        environment: clock::moved_clock(),
        ..Settings::new(directory)
    }
}

async fn start() -> RunningServer {
    let base = register_user();
    let _boot = lock(base, "boot.lock");
    let directory = base.join("cluster");
    if let Some(server) = RunningServer::find(&directory).filter(RunningServer::is_ready) {
        return server;
    }
    // Never repaired: the server runs without fsync, so its files cannot be trusted after a crash or a reboot.
    watchdog::stop_and_remove(&directory);
    let mut settings = settings(&directory);
    settings.max_connections = MAX_CONNECTIONS;
    settings.progress = std::sync::Arc::new(|line| eprintln!("{line}"));
    let extra = [
        // Databases live for about a second; vacuuming them would only make timings vary.
        ("autovacuum", "off"),
        // Without a replica, less has to be logged. Templates are copied file by file.
        ("wal_level", "minimal"),
        ("max_wal_senders", "0"),
        // Creating a database requests a checkpoint anyway; no others are needed.
        ("checkpoint_timeout", "1d"),
        ("max_wal_size", "4GB"),
    ];
    settings.extra = extra.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    match Cluster::start(settings).await {
        Ok(cluster) => cluster.detach(),
        Err(error) => panic!("no PostgreSQL for the tests: {error}"),
    }
}

/// Registers this process as a user of the base folder until it ends, and returns the folder. After the last user has
/// ended, the watchdog stops all servers in the folder and removes its contents.
pub(crate) fn register_user() -> &'static Path {
    static USER: OnceLock<File> = OnceLock::new();
    let base = base();
    USER.get_or_init(|| {
        let _boot = lock(base, "boot.lock");
        let users = open(base, "users.lock");
        // While a process holds the boot lock, the watchdog holds this lock only for a moment.
        users.lock_shared().expect("a shared lock on users.lock");
        watchdog::ensure(base);
        users
    });
    base
}

/// Opens a lock file and waits for it.
pub(super) fn lock(base: &Path, name: &str) -> File {
    let file = open(base, name);
    file.lock().unwrap_or_else(|error| panic!("cannot lock {name} in {}: {error}", base.display()));
    file
}

pub(super) fn open(base: &Path, name: &str) -> File {
    let file = File::options().create(true).truncate(false).write(true).open(base.join(name));
    file.unwrap_or_else(|error| panic!("cannot open {name} in {}: {error}", base.display()))
}

/// The folder of this checkout, user and clock: in memory if there is room, else under `target`, else the temporary
/// folder.
fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let mut hash = DefaultHasher::new();
        env!("CARGO_MANIFEST_DIR").hash(&mut hash);
        // A server keeps the clock it was started with, so each clock needs its own server.
        clock::moved_clock().hash(&mut hash);
        // `.ci/postgres-majors` runs the tests on one version after the other.
        std::env::var_os("PG_BIN_DIR").hash(&mut hash);
        let name = format!("millrace-tests-{}-{:016x}", geteuid(), hash.finish());
        let memory = Path::new(MEMORY).join(&name);
        let room =
            statvfs(MEMORY).is_ok_and(|memory| memory.blocks_available() * memory.fragment_size() >= MEMORY_NEEDED);
        // An existing server there may be what occupies the memory.
        let memory = Some(memory).filter(|memory| room || memory.join("cluster").exists());
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        let places = [memory, Some(target), Some(std::env::temp_dir().join(&name))];
        let usable = places.into_iter().flatten().find(|place| usable(place));
        usable.unwrap_or_else(|| {
            panic!("no folder for a test cluster: {MEMORY}, target and the temporary folder are not usable")
        })
    })
}

/// Creates the folder. All accounts may pass through it, because a root process runs its server under another account.
/// Returns false for a folder of another user.
fn usable(place: &Path) -> bool {
    let _ = fs::DirBuilder::new().mode(0o711).create(place);
    fs::symlink_metadata(place).is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
}
