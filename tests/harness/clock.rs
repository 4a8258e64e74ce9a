//! PostgreSQL with another clock.
//!
//! [`SteppedServer`] belongs to one test, which steps its clock by Debian's `faketime`. [`moved_clock`] is for all tests
//! under `.ci/at`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use embedded_postgres::{Cluster, Settings};
use runtime::migrate;
use sqlx::PgPool;

use super::{cluster::settings, needs, scratch::Scratch};

const DATABASE: &str = "millrace";
/// Debian's library folders, by architecture.
const LIBRARIES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

/// A migrated database on a server whose clock can be stepped. The clock of this process stays as it is.
pub(crate) struct SteppedServer {
    pub url: String,
    clock: PathBuf,
    // Stopped before its folder is removed.
    _cluster: Cluster,
    _scratch: Scratch,
}

impl SteppedServer {
    /// Starts a server. If faketime is missing, records this test as not run.
    pub(crate) async fn start() -> Option<Self> {
        let library = LIBRARIES.map(|folder| PathBuf::from(folder).join("faketime/libfaketimeMT.so.1"));
        let Some(library) = library.into_iter().find(|path| path.is_file()) else { return needs::missing("faketime") };
        let scratch = Scratch::new();
        let clock = scratch.join("clock");
        fs::write(&clock, "+0").expect("a clock");
        fs::set_permissions(&clock, fs::Permissions::from_mode(0o644)).expect("permissions");
        let environment = [
            ("LD_PRELOAD", library.as_path()),
            ("FAKETIME_TIMESTAMP_FILE", &clock),
            ("FAKETIME_NO_CACHE", Path::new("1")),
            // Time-outs keep their length.
            ("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_str().expect("UTF-8").to_owned()));
        let settings =
            Settings { max_connections: 50, environment: environment.to_vec(), ..settings(&scratch.join("server")) };
        let cluster = Cluster::start(settings).await.expect("a server");
        cluster.ensure_database(DATABASE).await.expect("a database");
        let url = cluster.url(DATABASE);
        let pool = PgPool::connect(&url).await.expect("a connection");
        migrate::run(&pool.clone().into()).await.expect("the schema");
        pool.close().await;
        Some(Self { url, clock, _cluster: cluster, _scratch: scratch })
    }

    /// Sets the server's clock to `seconds` after the real time.
    pub(crate) fn step(&self, seconds: i64) {
        // The file is replaced atomically: a session that reads half a number would have no clock.
        let new = self.clock.with_extension("new");
        fs::write(&new, format!("{seconds:+}")).expect("a clock");
        fs::rename(new, &self.clock).expect("a clock");
    }
}

/// Returns the variables by which `.ci/at` moves the clock of this process, for a process with the same clock and otherwise
/// an empty environment. Empty in every other run.
pub(crate) fn moved_clock() -> Vec<(String, String)> {
    if std::env::var_os("CLOCK_OFFSET_S").is_none() {
        return Vec::new();
    }
    let names = ["LD_PRELOAD", "CLOCK_OFFSET_S"];
    names.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}
