//! One embedded PostgreSQL: started, used by one Millrace at a time, and stopped with it.

use super::{
    create::{self, create},
    error::Error,
    fetch, launch,
    locate::{Search, locate},
    place,
    server::{self, Running},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use std::{
    fs::{File, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Child,
    sync::Arc,
};

/// Where one-line news of the start go, such as "fetching ...": a start that takes long says why.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// `CREATE DATABASE` of a name that has just been taken by somebody else.
const DUPLICATE_DATABASE: &str = "42P04";

/// What to start, and where.
#[derive(Clone)]
pub struct Settings {
    /// Holds the data, the log and the socket; made when missing. A root process whose server could not reach it keeps
    /// the data under `/var/lib/millrace` and leaves a link here.
    pub directory: PathBuf,
    /// `true`: a commit survives a power failure. `false`: for tests, everything may be lost.
    pub durable: bool,
    /// How many connections the server takes.
    pub max_connections: u16,
    /// More settings of `postgresql.conf`; they win over ours.
    pub extra: Vec<(String, String)>,
    /// Variables of the server's process, which has nothing else of ours but the path of programs and libraries.
    pub environment: Vec<(String, String)>,
    /// Where to look for binaries.
    pub search: Search,
    /// Where fetched binaries are kept; unset: the user's cache folder.
    pub cache: Option<PathBuf>,
    /// Told what takes long, one line each.
    pub progress: Progress,
}

impl Settings {
    /// Durable data in `directory`, 200 connections, binaries from anywhere, news to the log.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            durable: true,
            // Enough for an all-in-one and a few workers and psqls beside it; a slot costs some kilobytes.
            max_connections: 200,
            extra: Vec::new(),
            environment: Vec::new(),
            search: Search::Anywhere,
            cache: None,
            progress: Arc::new(|news| tracing::info!("{news}")),
        }
    }
}

/// A running server that is ours alone; it is stopped when this is dropped, at the latest.
#[derive(Debug)]
pub struct Cluster {
    server: Running,
    /// `None` after [`Cluster::leave`].
    child: Option<Child>,
    /// Held as long as we live; the kernel gives it back whatever way we die. The server does not inherit it, since
    /// std opens files close-on-exec.
    _owner: Owner,
}

impl Cluster {
    /// Finds binaries, makes the data directory if there is none, starts the server and waits until it takes
    /// connections. A server that was left behind by a killed run is stopped first.
    ///
    /// # Errors
    /// See [`Error`]: each says what failed, where, and what to do.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        // A relative path would mean another folder to the server, whose working directory is its own.
        let directory = std::path::absolute(&settings.directory)
            .map_err(Error::file("cannot make an absolute path of", &settings.directory))?;
        let (home, account) = place::settle(&directory, &settings.progress).await?;
        let owner = own(&home)?;
        let data = home.join("data");
        let wanted = create::version(&data)?;
        let cache = settings.cache.clone().unwrap_or_else(|| fetch::default_cache(account.dropped, &home));
        if account.dropped && settings.cache.is_none() {
            place::passable(Path::new(place::SYSTEM)).ok();
        }
        let binaries = locate(&settings.search, &account, wanted, &cache, &data, &settings.progress).await?;

        if let Some(orphan) = Running::find(&home) {
            (settings.progress)(&format!("Stopping a PostgreSQL (pid {}) that a killed run left behind", orphan.pid()));
            orphan.stop()?;
        }
        if wanted.is_none() {
            create(&home, &binaries, &account, settings.durable).await?;
        }
        account.give_all(&data)?;
        let sockets = place::sockets(&home, &account)?;
        server::bury(&data, &sockets);
        let (child, server) = launch::launch(&settings, &home, &sockets, &binaries, &account).await?;
        Ok(Self { server, child: Some(child), _owner: owner })
    }

    /// How to connect to one of its databases; understood by sqlx, by psql and by every other libpq client.
    pub fn url(&self, database: &str) -> String {
        self.server.url(database)
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Makes a database unless it is there.
    ///
    /// # Errors
    /// The server refuses, or cannot be reached.
    pub async fn ensure_database(&self, name: &str) -> Result<(), Error> {
        let fail = |source| Error::Database { what: format!("make the database {name}"), source };
        let mut connection = PgConnection::connect(&self.url("postgres")).await.map_err(fail)?;
        let exists = sqlx::query("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)").bind(name);
        if !exists.fetch_one(&mut connection).await.and_then(|row| row.try_get::<bool, _>(0)).map_err(fail)? {
            // A name cannot be a parameter here; quoted and doubled, any name is only a name.
            let create = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
            match sqlx::query(AssertSqlSafe(create)).execute(&mut connection).await {
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(DUPLICATE_DATABASE) => {}
                Err(error) => return Err(fail(error)),
                Ok(_) => {}
            }
        }
        connection.close().await.map_err(fail)
    }

    /// Stops the server and waits until it is gone: at most 18 s, by ruder ways towards the end.
    ///
    /// # Errors
    /// It is still there.
    pub async fn stop(mut self) -> Result<(), Error> {
        let stopped = tokio::task::spawn_blocking(move || self.stop_now());
        stopped.await.unwrap_or_else(|panic| Err(Error::Place(format!("stopping PostgreSQL broke off: {panic}"))))
    }

    /// Lets the server run on without us; whoever comes next finds it with [`Running::find`]. For test harnesses.
    pub fn leave(mut self) -> Running {
        self.child = None;
        self.server.clone()
    }

    fn stop_now(&mut self) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // Waiting for our own child buries it, too.
        server::stop(self.server.pid, &mut || !matches!(child.try_wait(), Ok(None)))?;
        // Empty now; one in `/tmp` would stay there for ever.
        let _ = std::fs::remove_dir(&self.server.sockets);
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop_now() {
            tracing::error!(%error, "cannot stop the embedded PostgreSQL");
        }
    }
}

/// Makes this process the only one that works with `home`.
fn own(home: &Path) -> Result<Owner, Error> {
    let path = home.join("owner.lock");
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(|error| match error
            .kind()
        {
            std::io::ErrorKind::PermissionDenied => Error::Place(format!(
                "{} belongs to another user: run as that one, or choose another folder, or remove it",
                home.display()
            )),
            _ => Error::file("cannot write", &path)(error),
        })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = Some(pid.trim().to_owned()).filter(|pid| !pid.is_empty());
            return Err(Error::InUse { directory: home.into(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(Error::file("cannot lock", &path)(error)),
    }
    let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    written.map_err(Error::file("cannot write", &path))?;
    Ok(Owner(file))
}

/// The lock on a home, until it is dropped.
#[derive(Debug)]
struct Owner(File);

impl Drop for Owner {
    fn drop(&mut self) {
        // Closing alone would leave it to a child that is between its fork and its exec at this moment.
        let _ = self.0.unlock();
    }
}
