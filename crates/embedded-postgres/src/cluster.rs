//! An embedded PostgreSQL cluster, owned by one Millrace process at a time and stopped with it.

use super::{
    create::{self, create_data_directory},
    directories,
    error::Error,
    fetch, launch,
    locate::locate,
    server::{self, RunningServer},
    settings::Settings,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use std::{
    fs::{File, TryLockError},
    io::{Read, Write},
    path::Path,
    process::Child,
};

/// SQLSTATE of `CREATE DATABASE` when the name exists, here because another process has just created it.
const DUPLICATE_DATABASE: &str = "42P04";

/// A running server that this process owns exclusively. Dropping this stops the server.
#[derive(Debug)]
pub struct Cluster {
    server: RunningServer,
    /// `None` after [`Cluster::detach`].
    child: Option<Child>,
    /// The kernel releases this lock however our process ends. The server does not inherit it, since std opens files
    /// close-on-exec.
    _lock: DirectoryLock,
}

impl Cluster {
    /// Finds binaries, creates the data directory if it is missing, starts the server and waits until it accepts
    /// connections. First it stops a server that a killed process has left running.
    ///
    /// # Errors
    /// When another process uses the directory, no usable binaries are found, or the server does not start. Each
    /// [`Error`] names the cause, the path and a remedy.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        // The server has another working directory, so that a relative path would name another folder there.
        let directory = std::path::absolute(&settings.directory)
            .map_err(Error::file("cannot make an absolute path of", &settings.directory))?;
        let (home, account) = directories::resolve(&directory, &settings.progress).await?;
        let lock = lock_directory(&home)?;
        let data = home.join("data");
        let data_version = create::data_version(&data)?;
        let cache = settings.cache.clone().unwrap_or_else(|| fetch::default_cache(account.switches_user, &home));
        if account.switches_user && settings.cache.is_none() {
            directories::create_passable(Path::new(directories::SYSTEM_DIRECTORY)).ok();
        }
        let binaries = locate(&settings.search, &account, data_version, &cache, &data, &settings.progress).await?;

        if let Some(orphan) = RunningServer::find(&home) {
            (settings.progress)(&format!(
                "Stopping PostgreSQL (pid {}), left running by a killed process",
                orphan.pid()
            ));
            orphan.stop()?;
        }
        if data_version.is_none() {
            create_data_directory(&home, &binaries, &account, settings.durable).await?;
        }
        account.own_tree(&data)?;
        let sockets = directories::socket_directory(&home, &account)?;
        server::remove_stale_files(&data, &sockets);
        let (child, server) = launch::start_server(&settings, &home, &sockets, &binaries, &account).await?;
        Ok(Self { server, child: Some(child), _lock: lock })
    }

    /// The connection URL of a database, for sqlx, psql and all other libpq clients.
    pub fn url(&self, database: &str) -> String {
        self.server.url(database)
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The ids of the server's processes; see [`RunningServer::processes`].
    pub fn processes(&self) -> Vec<u32> {
        self.server.processes()
    }

    /// Creates a database if it does not exist.
    ///
    /// # Errors
    /// When the server refuses it or cannot be reached.
    pub async fn ensure_database(&self, name: &str) -> Result<(), Error> {
        let fail = |source| Error::Database { what: format!("create the database {name}"), source };
        let mut connection = PgConnection::connect(&self.url("postgres")).await.map_err(fail)?;
        let exists = sqlx::query("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)").bind(name);
        if !exists.fetch_one(&mut connection).await.and_then(|row| row.try_get::<bool, _>(0)).map_err(fail)? {
            // A name cannot be a parameter here. Quoting, with inner quotes doubled, makes any name safe.
            let create = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
            match sqlx::query(AssertSqlSafe(create)).execute(&mut connection).await {
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(DUPLICATE_DATABASE) => {}
                Err(error) => return Err(fail(error)),
                Ok(_) => {}
            }
        }
        connection.close().await.map_err(fail)
    }

    /// Stops the server and waits at most 18 s until it has exited, with stronger signals towards the end.
    ///
    /// # Errors
    /// When the server still runs.
    pub async fn stop(mut self) -> Result<(), Error> {
        let stopped = tokio::task::spawn_blocking(move || self.stop_now());
        stopped
            .await
            .unwrap_or_else(|panic| Err(Error::Environment(format!("the task that stops PostgreSQL failed: {panic}"))))
    }

    /// Gives up the ownership and lets the server run. Other processes find it with [`RunningServer::find`]. For test
    /// harnesses.
    pub fn detach(mut self) -> RunningServer {
        self.child = None;
        self.server.clone()
    }

    fn stop_now(&mut self) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // `try_wait` also reaps the child, so that it does not remain as a zombie.
        server::stop(self.server.pid, &mut || !matches!(child.try_wait(), Ok(None)))?;
        // It is empty now. Nothing else would remove a folder in `/tmp`.
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

/// Locks `home`, so that no other process uses it.
fn lock_directory(home: &Path) -> Result<DirectoryLock, Error> {
    let path = home.join("owner.lock");
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(|error| match error
            .kind()
        {
            std::io::ErrorKind::PermissionDenied => Error::Environment(format!(
                "{} belongs to another user: run as that user, choose another folder, or remove this one",
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
    Ok(DirectoryLock(file))
}

/// The lock on a cluster's folder, held until this is dropped.
#[derive(Debug)]
struct DirectoryLock(File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child between its fork and its exec would still hold the lock.
        let _ = self.0.unlock();
    }
}
