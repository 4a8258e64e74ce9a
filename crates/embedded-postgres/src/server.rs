//! A running server, found by its pid file even after the process that started it has died, and stopped within a time limit.

use super::error::Error;
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

/// The database superuser. Local connections are trusted, since only our account can reach the socket.
pub(super) const SUPERUSER: &str = "millrace";

/// The signals that stop a server, and the time limit of each before the next, stronger one. SIGINT disconnects all
/// clients and writes a checkpoint, which takes 0.1 s, or longer on a busy disk. SIGQUIT skips the checkpoint, so that the
/// next start replays the log. The sum of 18 s is below the 30 s that a stop of Millrace may take.
const STOP_SIGNALS: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(10)),
    (Signal::SIGQUIT, Duration::from_secs(5)),
    (Signal::SIGKILL, Duration::from_secs(3)),
];

/// 10 % of the 50 ms that a fast shutdown takes.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A server that runs on a data directory; this process does not necessarily own it.
#[derive(Debug, Clone)]
pub struct RunningServer {
    pub(super) pid: Pid,
    pub(super) data: PathBuf,
    pub(super) sockets: PathBuf,
    pub(super) ready: bool,
}

impl RunningServer {
    /// Finds the server that runs in `directory` (see [`super::Settings`]), even if another process started it.
    pub fn find(directory: &Path) -> Option<Self> {
        let data = fs::canonicalize(directory.join("data")).ok()?;
        let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        // Lines: process, data directory, start time, port, socket directory, address, shared memory, status.
        let lines: Vec<&str> = text.lines().collect();
        let pid = Pid::from_raw(lines.first()?.trim().parse().ok().filter(|pid| *pid > 1)?);
        let sockets = PathBuf::from(lines.get(4).copied().unwrap_or_default());
        let ready = lines.get(7).is_some_and(|status| status.trim() == "ready");
        Some(Self { pid, data, sockets, ready }).filter(Self::is_alive)
    }

    /// Whether the server accepts connections.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// The ids of the server's processes: its own, then on Linux those of the processes that it has started.
    pub fn processes(&self) -> Vec<u32> {
        let own = self.pid();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let started = all.filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| parent_in(&stat) == Some(own))
        });
        std::iter::once(own).chain(started).collect()
    }

    /// The connection URL of a database, for sqlx, psql and all other libpq clients.
    pub fn url(&self, database: &str) -> String {
        let name: String = url::form_urlencoded::byte_serialize(database.as_bytes()).collect();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        // All parameters are explicit, so that PGPORT or PGSSLMODE of the environment have no effect.
        query.append_pair("host", &self.sockets.to_string_lossy()).append_pair("port", "5432");
        query.append_pair("user", SUPERUSER).append_pair("sslmode", "disable");
        format!("postgres:///{}?{}", name.replace('+', "%20"), query.finish())
    }

    /// Stops the server and waits until it has exited.
    ///
    /// # Errors
    /// When the server still runs after 18 s.
    pub fn stop(&self) -> Result<(), Error> {
        stop(self.pid, &mut || !self.is_alive())
    }

    /// Whether the process is still this server, since the system reuses process ids. The command line identifies it:
    /// unlike the working folder, every account can read it, and it is empty for a zombie.
    pub(super) fn is_alive(&self) -> bool {
        if kill(self.pid, None) == Err(Errno::ESRCH) {
            return false;
        }
        let command = match fs::read(format!("/proc/{}/cmdline", self.pid)) {
            Ok(command) => String::from_utf8_lossy(&command).replace('\0', " "),
            Err(_) if Path::new("/proc/self").exists() => return false,
            Err(_) => {
                let output = Command::new("ps").args(["-ww", "-o", "command=", "-p", &self.pid.to_string()]).output();
                output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
            }
        };
        command.contains("postgres") && command.contains(&*self.data.to_string_lossy())
    }
}

/// The parent in the text of `/proc/PID/stat`. The name before it may contain blanks, and ends at the last bracket.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Stops a server; after each time limit it sends the next signal. Blocking, since `Drop` calls it too.
pub(super) fn stop(pid: Pid, has_exited: &mut dyn FnMut() -> bool) -> Result<(), Error> {
    for (signal, limit) in STOP_SIGNALS {
        let deadline = Instant::now() + limit;
        if has_exited() {
            return Ok(());
        }
        // An error means that the server has just exited, which the loop notices.
        let _ = kill(pid, signal);
        while Instant::now() < deadline {
            if has_exited() {
                return Ok(());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
    Err(Error::Stop { pid: pid.as_raw() })
}

/// Removes the pid file and the sockets of a killed server. If another program has its process id now, the next server
/// would mistake that program for a running server and refuse to start.
pub(super) fn remove_stale_files(data: &Path, sockets: &Path) {
    let _ = fs::remove_file(data.join("postmaster.pid"));
    for entry in fs::read_dir(sockets).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(".s.PGSQL.") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_follows_the_name() {
        for (stat, parent) in [
            ("12 (postgres) S 11 11 11 0 -1", Some(11)),
            ("13 (a) S 1 (b c) R 12 12 12 0 -1", Some(12)),
            ("14 (postgres", None),
        ] {
            assert_eq!(parent_in(stat), parent, "{stat}");
        }
    }
}
