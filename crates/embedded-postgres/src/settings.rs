//! How a cluster is started.

use std::{path::PathBuf, sync::Arc};

/// Receives progress messages of a slow start, one line each, such as "Fetching PostgreSQL ...".
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// Where to look for binaries: the value of `PG_BIN_DIR`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Search {
    /// Unset: use the system's binaries, else cached ones, else fetch them.
    #[default]
    Anywhere,
    /// Use this folder only.
    Folder(PathBuf),
    /// `fetch`: ignore the system's binaries; use cached ones, else fetch them.
    Fetch,
}

impl Search {
    /// Reads the value of `PG_BIN_DIR`; empty counts as unset.
    pub fn parse(value: &str) -> Self {
        match value.trim() {
            "" => Self::Anywhere,
            "fetch" => Self::Fetch,
            folder => Self::Folder(folder.into()),
        }
    }
}

/// How a cluster is started, and where its files are.
#[derive(Clone)]
pub struct Settings {
    /// The folder for data, log and socket; created if missing. If a root process's server cannot enter it, the data are
    /// under `/var/lib/millrace`, and this is a link to them.
    pub directory: PathBuf,
    /// `true`: a commit survives a power failure. `false`: a power failure may lose all data; for tests.
    pub durable: bool,
    /// The server's `max_connections`.
    pub max_connections: u16,
    /// Further settings of `postgresql.conf`; they override ours.
    pub extra: Vec<(String, String)>,
    /// Environment variables of the server. It inherits only the search paths of programs and libraries.
    pub environment: Vec<(String, String)>,
    /// Where to look for binaries.
    pub search: Search,
    /// The folder for fetched binaries; unset: the user's cache folder.
    pub cache: Option<PathBuf>,
    /// Receives progress messages.
    pub progress: Progress,
}

impl Settings {
    /// Durable data in `directory`, 200 connections, any binaries, progress messages to the log.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            durable: true,
            // Enough for the all-in-one process, several workers and psql sessions; a slot costs some kilobytes.
            max_connections: 200,
            extra: Vec::new(),
            environment: Vec::new(),
            search: Search::Anywhere,
            cache: None,
            progress: Arc::new(|line| tracing::info!("{line}")),
        }
    }
}
