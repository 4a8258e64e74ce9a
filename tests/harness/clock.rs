//! A PostgreSQL of one test's own whose clock the test steps while it runs, by Debian's `faketime`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

use jobs::boot::{
    migrate,
    postgres::{Cluster, Search, Settings},
};
use sqlx::PgPool;

use super::{needs, scratch::Scratch};

const DATABASE: &str = "millrace";
/// Where Debian has it, by architecture.
const LIBRARIES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

/// A migrated database on a server whose clock can be stepped. The clock of this process stays as it is.
pub struct SteppedServer {
    pub url: String,
    clock: PathBuf,
    // Stopped before its folder goes.
    _cluster: Cluster,
    _scratch: Scratch,
}

impl SteppedServer {
    /// Starts one; `None` where there is no faketime or no PostgreSQL to wrap.
    pub async fn start() -> Option<Self> {
        let library = LIBRARIES.map(|folder| PathBuf::from(folder).join("faketime/libfaketimeMT.so.1"));
        let Some(library) = library.into_iter().find(|path| path.is_file()) else { return needs::lacking("faketime") };
        let folder = std::env::var_os("PG_BIN_DIR").map(PathBuf::from).filter(|folder| folder.is_dir());
        let programs = match folder {
            Some(folder) => folder,
            None => fs::canonicalize(needs::program("postgres")?).expect("a path").parent()?.to_owned(),
        };
        let scratch = Scratch::new();
        let (bin, clock) = (scratch.join("bin"), scratch.join("clock"));
        fs::create_dir(&bin).expect("a folder");
        for program in fs::read_dir(&programs).expect("programs").filter_map(Result::ok) {
            symlink(program.path(), bin.join(program.file_name())).expect("a link");
        }
        // The server itself gets another clock for the time of day, and keeps its own for time-outs.
        let postgres = bin.join("postgres");
        fs::remove_file(&postgres).expect("the link to the server");
        let script = format!(
            "#!/bin/sh\nLD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
             exec {}/postgres \"$@\"\n",
            library.display(),
            clock.display(),
            programs.display()
        );
        fs::write(&postgres, script).expect("a script");
        for path in [&bin, &postgres] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
        }
        fs::write(&clock, "+0").expect("a clock");
        fs::set_permissions(&clock, fs::Permissions::from_mode(0o644)).expect("permissions");
        let search = Search::Folder(bin);
        let settings =
            Settings { durable: false, max_connections: 50, search, ..Settings::new(scratch.join("server")) };
        let cluster = Cluster::start(settings).await.expect("a server");
        cluster.ensure_database(DATABASE).await.expect("a database");
        let url = cluster.url(DATABASE);
        let pool = PgPool::connect(&url).await.expect("a connection");
        migrate::run(&pool).await.expect("the schema");
        pool.close().await;
        Some(Self { url, clock, _cluster: cluster, _scratch: scratch })
    }

    /// Steps the server's clock to so many seconds from the true time.
    pub fn step(&self, seconds: i64) {
        // Replaced at once: a session that reads half a number would have no clock.
        let new = self.clock.with_extension("new");
        fs::write(&new, format!("{seconds:+}")).expect("a clock");
        fs::rename(new, &self.clock).expect("a clock");
    }
}
