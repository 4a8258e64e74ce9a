//! A running server as the file system shows it: recognised after its starter's death, and stopped within a limit.

use super::{create::USER, error::Error};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// How a server is asked to go, and how long each way may take before the next, ruder one: disconnect everybody and
/// write a checkpoint (0.1 s, more on a busy disk), drop everything (the next start replays the log), be killed.
/// Together less than the 30 s that a stop of Millrace may take.
const WAYS: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(10)),
    (Signal::SIGQUIT, Duration::from_secs(5)),
    (Signal::SIGKILL, Duration::from_secs(3)),
];

/// Short against a fast shutdown's 50 ms.
const STEP: Duration = Duration::from_millis(5);

/// A server that runs on a data directory.
#[derive(Debug, Clone)]
pub struct Running {
    pub(super) pid: Pid,
    pub(super) data: PathBuf,
    pub(super) sockets: PathBuf,
    pub(super) ready: bool,
}

impl Running {
    /// The server of `directory` (as given to [`super::Settings`]), if one runs there, whoever started it.
    pub fn find(directory: &Path) -> Option<Self> {
        let data = fs::canonicalize(directory.join("data")).ok()?;
        let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        // Lines: process, data directory, start time, port, socket directory, address, shared memory, status.
        let lines: Vec<&str> = text.lines().collect();
        let pid = Pid::from_raw(lines.first()?.trim().parse().ok().filter(|pid| *pid > 1)?);
        let sockets = PathBuf::from(lines.get(4).copied().unwrap_or_default());
        let ready = lines.get(7).is_some_and(|status| status.trim() == "ready");
        Some(Self { pid, data, sockets, ready }).filter(Self::alive)
    }

    /// Whether it takes connections.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// How to connect to one of its databases; understood by sqlx, by psql and by every other libpq client.
    pub fn url(&self, database: &str) -> String {
        let name: String = url::form_urlencoded::byte_serialize(database.as_bytes()).collect();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        // Named in full, so that PGPORT or PGSSLMODE of somebody's shell mean other servers.
        query.append_pair("host", &self.sockets.to_string_lossy()).append_pair("port", "5432");
        query.append_pair("user", USER).append_pair("sslmode", "disable");
        format!("postgres:///{}?{}", name.replace('+', "%20"), query.finish())
    }

    /// Stops it and waits until it is gone.
    ///
    /// # Errors
    /// It is still there after 18 s.
    pub fn stop(&self) -> Result<(), Error> {
        stop(self.pid, &mut || !self.alive())
    }

    /// Whether that process is still this server: a process id is given to another program sooner or later. What a
    /// process was started with is readable by everybody, unlike its folder, and empty for one that is dead and unburied.
    pub(super) fn alive(&self) -> bool {
        if kill(self.pid, None) == Err(Errno::ESRCH) {
            return false;
        }
        let command = match fs::read(format!("/proc/{}/cmdline", self.pid)) {
            Ok(command) => String::from_utf8_lossy(&command).replace('\0', " "),
            Err(_) if Path::new("/proc/self").exists() => return false,
            Err(_) => {
                let said = Command::new("ps").args(["-ww", "-o", "command=", "-p", &self.pid.to_string()]).output();
                said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default()
            }
        };
        command.contains("postgres") && command.contains(&*self.data.to_string_lossy())
    }
}

/// Stops a server, by the next way whenever one takes too long. Blocks: it is needed in `Drop` too.
pub(super) fn stop(pid: Pid, gone: &mut dyn FnMut() -> bool) -> Result<(), Error> {
    for (signal, limit) in WAYS {
        let deadline = Instant::now() + limit;
        if gone() {
            return Ok(());
        }
        // It may have gone in between, which the loop notices.
        let _ = kill(pid, signal);
        while Instant::now() < deadline {
            if gone() {
                return Ok(());
            }
            std::thread::sleep(STEP);
        }
    }
    Err(Error::Stop { pid: pid.as_raw() })
}

/// Removes what a server that was killed leaves behind: its process id may be another program's by now, and then the
/// next server would take that program for it and refuse to start.
pub(super) fn bury(data: &Path, sockets: &Path) {
    let _ = fs::remove_file(data.join("postmaster.pid"));
    for entry in fs::read_dir(sockets).into_iter().flatten().filter_map(|entry| entry.ok()) {
        if entry.file_name().to_string_lossy().starts_with(".s.PGSQL.") {
            let _ = fs::remove_file(entry.path());
        }
    }
}
