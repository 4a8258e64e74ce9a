//! Starts the server process and waits until it accepts connections; errors contain the end of the server's log.

use super::{
    account::Account,
    error::Error,
    locate::Binaries,
    server::{self, RunningServer},
    settings::{Progress, Settings},
};
use nix::unistd::Pid;
use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// A start takes 0.1 s after a clean stop. After a crash the server replays its log, with default settings at most 1 GB.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// After this long, a progress message says what the start waits for.
const NOTICE_DELAY: Duration = Duration::from_secs(5);
/// 5 % of the 0.1 s that a start takes.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The last children of a killed server hold its shared memory briefly. A new server refuses to start until they exit.
const SHARED_MEMORY_TIMEOUT: Duration = Duration::from_secs(10);
/// A part of the server's message in that case.
const STILL_IN_USE: &str = "still in use";
/// A log larger than this is truncated at the next start, in bytes.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;
/// The number of log lines in an error message: enough for a FATAL with its HINT and CONTEXT.
const TAIL_LINES: usize = 10;

/// Starts the server on `home/data`.
pub(super) async fn start_server(
    settings: &Settings,
    home: &Path,
    sockets: &Path,
    binaries: &Binaries,
    account: &Account,
) -> Result<(Child, RunningServer), Error> {
    let mut command = account.command(binaries.bin.join("postgres")).into_std();
    command.arg("-D").arg(home.join("data")).envs(settings.environment.iter().cloned());
    for (name, value) in parameters(settings, sockets) {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    // Its own process group, since Ctrl-C in a terminal signals the whole group: we drain first and stop the server last.
    command.process_group(0).stdin(Stdio::null());
    let begun = Instant::now();
    loop {
        let log = Log::open(home.join("postgresql.log"))?;
        match start_once(&mut command, &log, home, &settings.progress).await {
            Err(Error::Start { tail, .. })
                if tail.contains(STILL_IN_USE) && begun.elapsed() < SHARED_MEMORY_TIMEOUT =>
            {
                tokio::time::sleep(POLL_INTERVAL * 10).await;
            }
            outcome => return outcome,
        }
    }
}

async fn start_once(
    command: &mut Command,
    log: &Log,
    home: &Path,
    progress: &Progress,
) -> Result<(Child, RunningServer), Error> {
    command.stdout(log.handle()?).stderr(log.handle()?);
    let child = command.spawn().map_err(Error::file("cannot run", command.get_program()))?;
    let mut starting = StartingServer(Some(child));
    let begun = Instant::now();
    let mut has_notified = false;
    loop {
        if let Some(status) = starting.exit_status() {
            return Err(log.error(format!("it ended with {status}")));
        }
        let found = RunningServer::find(home).filter(|server| server.ready && Some(server.pid) == starting.pid());
        if let Some(server) = found
            && let Some(child) = starting.0.take()
        {
            return Ok((child, server));
        }
        if begun.elapsed() > START_TIMEOUT {
            return Err(log.error(format!("it is not ready after {} s", START_TIMEOUT.as_secs())));
        }
        if begun.elapsed() > NOTICE_DELAY && !has_notified {
            has_notified = true;
            progress(&format!("Waiting for PostgreSQL; the last line of {}: {}", log.path.display(), log.tail(1)));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn parameters(settings: &Settings, sockets: &Path) -> Vec<(String, String)> {
    let durable = if settings.durable { "on" } else { "off" };
    // The setting is a list of folders. Quotes let a path contain commas and blanks.
    let sockets = format!("\"{}\"", sockets.to_string_lossy().replace('"', "\"\""));
    let max_connections = settings.max_connections.to_string();
    let ours = [
        ("listen_addresses", ""),
        ("port", "5432"),
        ("unix_socket_directories", &sockets),
        ("unix_socket_permissions", "0700"),
        ("max_connections", &max_connections),
        // Only some megabytes of jobs must be in memory; the rest of the machine's memory belongs to its owner.
        ("shared_buffers", "128MB"),
        // On even without fsync: it costs nothing there, and tests then see the commit order of production.
        ("synchronous_commit", "on"),
        ("fsync", durable),
        ("full_page_writes", durable),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
    ];
    let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    // The last value of a setting applies.
    ours.chain(settings.extra.iter().cloned()).collect()
}

/// A server that is not ready yet. It is stopped if the wait for it fails or is cancelled.
struct StartingServer(Option<Child>);

impl StartingServer {
    fn pid(&self) -> Option<Pid> {
        self.0.as_ref().map(|child| Pid::from_raw(child.id().cast_signed()))
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        self.0.as_mut()?.try_wait().ok().flatten()
    }
}

impl Drop for StartingServer {
    fn drop(&mut self) {
        if let Some(pid) = self.pid()
            && let Err(error) = server::stop(pid, &mut || self.exit_status().is_some())
        {
            tracing::error!(%error, "cannot stop a PostgreSQL that did not become ready");
        }
    }
}

/// The server's log, and the offset at which the lines of this start begin.
struct Log {
    path: PathBuf,
    file: File,
    offset: u64,
}

impl Log {
    fn open(path: PathBuf) -> Result<Self, Error> {
        let offset = fs::metadata(&path).map(|log| log.len()).unwrap_or_default();
        let mut options = File::options();
        options.create(true).append(true).mode(0o600);
        let file = options.open(&path).map_err(Error::file("cannot write", &path))?;
        let offset = if offset > LOG_LIMIT {
            file.set_len(0).map_err(Error::file("cannot shorten", &path))?;
            0
        } else {
            offset
        };
        Ok(Self { path, file, offset })
    }

    fn handle(&self) -> Result<File, Error> {
        self.file.try_clone().map_err(Error::file("cannot open", &self.path))
    }

    /// The last lines that the server has logged since this start.
    fn tail(&self, lines: usize) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.offset))?;
            log.take(LOG_LIMIT).read_to_end(&mut bytes)
        });
        if let Err(error) = read {
            return format!("(cannot be read: {error})");
        }
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn error(&self, reason: String) -> Error {
        Error::Start { reason, log: self.path.clone(), tail: self.tail(TAIL_LINES) }
    }
}
