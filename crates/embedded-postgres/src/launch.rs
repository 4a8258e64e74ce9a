//! Starts the server process and waits until it takes connections, or says why it does not.

use super::{
    account::Account,
    cluster::Settings,
    error::Error,
    locate::Binaries,
    server::{self, Running},
};
use nix::unistd::Pid;
use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// 0.1 s when it was stopped in good order. After a crash it replays the log, at most a gigabyte by its defaults.
const START_LIMIT: Duration = Duration::from_secs(120);
/// After this long the user is told what we wait for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Short against the 0.1 s of a start.
const STEP: Duration = Duration::from_millis(5);
/// A killed server's last children hold its shared memory for a moment, and a new one refuses to start meanwhile.
const REST_LIMIT: Duration = Duration::from_secs(10);
/// What the server says in that case.
const STILL_IN_USE: &str = "still in use";
/// A log that has grown beyond this is begun anew.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;
/// Lines of the log in an error message: enough for a FATAL with its HINT and CONTEXT.
const TAIL_LINES: usize = 10;

/// Starts the server on `home/data`.
pub(super) async fn launch(
    settings: &Settings,
    home: &Path,
    sockets: &Path,
    binaries: &Binaries,
    account: &Account,
) -> Result<(Child, Running), Error> {
    let begun = Instant::now();
    loop {
        let log = Log::open(home.join("postgresql.log"))?;
        match attempt(settings, &log, home, sockets, binaries, account).await {
            Err(Error::Start { tail, .. }) if tail.contains(STILL_IN_USE) && begun.elapsed() < REST_LIMIT => {
                tokio::time::sleep(STEP * 10).await;
            }
            outcome => return outcome,
        }
    }
}

async fn attempt(
    settings: &Settings,
    log: &Log,
    home: &Path,
    sockets: &Path,
    binaries: &Binaries,
    account: &Account,
) -> Result<(Child, Running), Error> {
    let data = home.join("data");
    let mut command = account.command(binaries.bin.join("postgres"));
    command.arg("-D").arg(&data).envs(settings.environment.iter().cloned());
    for (name, value) in parameters(settings, sockets) {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    let (out, err) = (log.handle()?, log.handle()?);
    // Its own process group: a Ctrl-C in the terminal is for us, who drain first and stop the server last.
    command.process_group(0).stdin(Stdio::null()).stdout(out).stderr(err);
    let child = command.spawn().map_err(Error::file("cannot run", binaries.bin.join("postgres")))?;
    let mut starting = Starting(Some(child));
    let begun = Instant::now();
    let mut told = false;
    loop {
        if let Some(status) = starting.ended() {
            return Err(log.error(format!("it ended with {status}")));
        }
        let found = Running::find(home).filter(|server| server.ready && Some(server.pid) == starting.pid());
        if let Some(server) = found
            && let Some(child) = starting.0.take()
        {
            return Ok((child, server));
        }
        if begun.elapsed() > START_LIMIT {
            return Err(log.error(format!("it is not ready after {} s", START_LIMIT.as_secs())));
        }
        if begun.elapsed() > PATIENCE && !told {
            told = true;
            (settings.progress)(&format!(
                "Waiting for PostgreSQL, which says in {}: {}",
                log.path.display(),
                log.tail(1)
            ));
        }
        tokio::time::sleep(STEP).await;
    }
}

fn parameters(settings: &Settings, sockets: &Path) -> Vec<(String, String)> {
    let durable = if settings.durable { "on" } else { "off" };
    // A list of folders; quoted, so that a comma or a blank in a path is only a letter.
    let sockets = format!("\"{}\"", sockets.to_string_lossy().replace('"', "\"\""));
    let max_connections = settings.max_connections.to_string();
    let ours = [
        ("listen_addresses", ""),
        ("port", "5432"),
        ("unix_socket_directories", &sockets),
        ("unix_socket_permissions", "0700"),
        ("max_connections", &max_connections),
        // Some megabytes of jobs are all that must be in memory; it leaves the machine to its owner.
        ("shared_buffers", "128MB"),
        // Kept on even without fsync: it costs nothing there, and tests then see the commit order of production.
        ("synchronous_commit", "on"),
        ("fsync", durable),
        ("full_page_writes", durable),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
    ];
    let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    // The last one of a name wins.
    ours.chain(settings.extra.iter().cloned()).collect()
}

/// A server that is not ready yet: stopped when the wait for it ends in an error or is given up.
struct Starting(Option<Child>);

impl Starting {
    fn pid(&self) -> Option<Pid> {
        self.0.as_ref().map(|child| Pid::from_raw(child.id().cast_signed()))
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.0.as_mut()?.try_wait().ok().flatten()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(pid) = self.pid()
            && let Err(error) = server::stop(pid, &mut || self.ended().is_some())
        {
            tracing::error!(%error, "cannot stop a PostgreSQL that did not get ready");
        }
    }
}

/// The server's log, and where in it this start begins.
struct Log {
    path: PathBuf,
    file: File,
    begin: u64,
}

impl Log {
    fn open(path: PathBuf) -> Result<Self, Error> {
        let begin = fs::metadata(&path).map(|log| log.len()).unwrap_or_default();
        let mut options = File::options();
        options.create(true).append(true).mode(0o600);
        let file = options.open(&path).map_err(Error::file("cannot write", &path))?;
        let begin = if begin > LOG_LIMIT {
            file.set_len(0).map_err(Error::file("cannot shorten", &path))?;
            0
        } else {
            begin
        };
        Ok(Self { path, file, begin })
    }

    fn handle(&self) -> Result<File, Error> {
        self.file.try_clone().map_err(Error::file("cannot open", &self.path))
    }

    /// What the server has said since this start, its last lines only.
    fn tail(&self, lines: usize) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.begin))?;
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
