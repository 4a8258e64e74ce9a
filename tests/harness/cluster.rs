//! One private PostgreSQL per checkout, shared by all test processes, gone when none of them is left.
//!
//! Three lock files decide; all are opened close-on-exec, so that no server inherits them:
//! `boot.lock` (exclusive) is held while the server is started or stopped; `users.lock` (shared) by every test process
//! as long as it lives, whatever way it dies; `watchdog.lock` (exclusive) by the [watchdog](super::watchdog), which stops
//! the server.

use super::{clock, watchdog};
use jobs::boot::postgres::{Cluster, Running, Search, Settings};
use nix::{sys::statvfs::statvfs, unistd::geteuid};
use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};
use tokio::sync::OnceCell;

/// Memory: a database costs 11 ms to make there, 50 to 390 ms on a throttled disk.
const MEMORY: &str = "/dev/shm";
/// A database takes 8 MB until its test is over, and Docker's default of 64 MB for all is less than one cluster.
const MEMORY_WANTED: u64 = 1 << 30;
/// Two test threads with pools of ten are 20; nextest on a large machine has more of both.
const MAX_CONNECTIONS: u16 = 500;

/// The server for this process's tests, started if need be.
pub async fn server() -> &'static Running {
    static SERVER: OnceCell<Running> = OnceCell::const_new();
    SERVER.get_or_init(start).await
}

async fn start() -> Running {
    let base = enter();
    let _boot = lock(base, "boot.lock");
    let directory = base.join("cluster");
    if let Some(server) = Running::find(&directory).filter(Running::is_ready) {
        return server;
    }
    // Never repaired: without fsync, nothing that a crash or a reboot left is worth trusting.
    watchdog::sweep(&directory);
    let mut settings = Settings::new(&directory);
    settings.durable = false;
    settings.max_connections = MAX_CONNECTIONS;
    settings.search = std::env::var("PG_BIN_DIR").map(|value| Search::parse(&value)).unwrap_or_default();
    settings.environment = clock::of_this_process();
    settings.progress = std::sync::Arc::new(|news| eprintln!("{news}"));
    let extra = [
        // Databases live for a second: cleaning them only makes timings differ.
        ("autovacuum", "off"),
        // No replica, so less to log; a template is copied file by file anyway.
        ("wal_level", "minimal"),
        ("max_wal_senders", "0"),
        // Left to the checkpoints that making a database asks for.
        ("checkpoint_timeout", "1d"),
        ("max_wal_size", "4GB"),
    ];
    settings.extra = extra.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    match Cluster::start(settings).await {
        Ok(cluster) => cluster.leave(),
        Err(error) => panic!("no PostgreSQL for the tests: {error}"),
    }
}

/// Makes this process one of the users of the base folder, for as long as it lives: whatever is left in there when the
/// last user is gone, servers included, is cleared away by the watchdog.
pub fn enter() -> &'static Path {
    static USER: OnceLock<File> = OnceLock::new();
    let base = base();
    USER.get_or_init(|| {
        let _boot = lock(base, "boot.lock");
        let users = open(base, "users.lock");
        // The watchdog holds it for a moment only while it does not hold the boot lock.
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

/// This checkout's, this user's and this clock's folder: in memory if there is room, else under `target`, else with temporary files.
fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let mut hash = DefaultHasher::new();
        env!("CARGO_MANIFEST_DIR").hash(&mut hash);
        // A server has the clock with which it was started.
        clock::of_this_process().hash(&mut hash);
        let name = format!("millrace-tests-{}-{:016x}", geteuid(), hash.finish());
        let memory = Path::new(MEMORY).join(&name);
        let room =
            statvfs(MEMORY).is_ok_and(|memory| memory.blocks_available() * memory.fragment_size() >= MEMORY_WANTED);
        // A server that is there already may be what takes the room.
        let memory = Some(memory).filter(|memory| room || memory.join("cluster").exists());
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        let places = [memory, Some(target), Some(std::env::temp_dir().join(&name))];
        let usable = places.into_iter().flatten().find(|place| usable(place));
        usable
            .unwrap_or_else(|| panic!("no place for a test cluster: {MEMORY}, target and the temporary folder refuse"))
    })
}

/// Makes the folder; passable, since a root process has its server run by another account. Somebody else's is not taken.
fn usable(place: &Path) -> bool {
    let _ = fs::DirBuilder::new().mode(0o711).create(place);
    fs::symlink_metadata(place).is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
}
