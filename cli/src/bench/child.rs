//! Our own programs as child processes, as an operator runs them: started, asked what they use, stopped.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use jobs::boot::process;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// From its start to its first useful line.
const START: Duration = Duration::from_secs(30);
/// From SIGTERM to its end; it needs none of the grace, since nothing runs then.
const STOP: Duration = Duration::from_secs(30);
/// Its last lines, for the error message.
const KEPT_LINES: usize = 20;

/// A child process; killed when dropped.
pub struct Child {
    name: String,
    process: std::process::Child,
    lines: Arc<Mutex<VecDeque<String>>>,
    news: mpsc::Receiver<String>,
}

impl Child {
    /// Starts this very program with an argument, with these variables and none of our own configuration, and waits for
    /// the line of its log that has `ready` in it.
    ///
    /// # Errors
    /// Why it does not run, with its last lines.
    pub fn start(name: &str, folder: &Path, variables: &[(&str, &str)], ready: &str) -> Result<(Self, String), String> {
        let program = std::env::current_exe().map_err(process::text)?;
        let mut command = Command::new(program);
        command.arg(name).current_dir(folder).env_clear().env("LOG_FORMAT", "json").envs(variables.iter().copied());
        for kept in ["PATH", "HOME", "RUST_LOG", "RUST_BACKTRACE", "TMPDIR"] {
            command.envs(std::env::var(kept).map(|value| (kept, value)));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().map_err(|error| format!("{name} does not start: {error}"))?;
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, news) = mpsc::channel();
        let (kept, wanted) = (lines.clone(), ready.to_owned());
        let stdout = process.stdout.take();
        std::thread::spawn(move || {
            let mut sender = Some(sender);
            let lines = stdout.into_iter().flat_map(|out| BufReader::with_capacity(1 << 16, out).lines());
            for line in lines.map_while(Result::ok) {
                if sender.is_some() && line.contains(&wanted) {
                    // Whoever started it waits for one line only.
                    let _ = sender.take().map(|sender| sender.send(line.clone()));
                }
                let mut lines = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == KEPT_LINES {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
        });
        let child = Self { name: name.to_owned(), process, lines, news };
        match child.news.recv_timeout(START) {
            Ok(line) => Ok((child, line)),
            Err(_) => Err(format!("{name} did not get ready; its last lines:\n{}", child.last_lines())),
        }
    }

    fn last_lines(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// Processor time so far, of all its threads.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn cpu(&self) -> Result<Duration, String> {
        // Fields 14 and 15 of proc(5), in ticks; the name in field 2 may hold blanks, and ends with the last bracket.
        let stat = self.proc("stat")?;
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
        let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
        const TICK: Duration = Duration::from_millis(10);
        match ticks[..] {
            [user, system] => Ok(TICK * u32::try_from(user + system).unwrap_or(u32::MAX)),
            _ => Err(format!("{}: its processor time is not readable", self.name)),
        }
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn memory(&self) -> Result<u64, String> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|text| text.parse::<u64>().ok());
        kilobytes.map(|kb| kb * 1024).ok_or_else(|| format!("{}: its memory is not readable", self.name))
    }

    fn proc(&self, file: &str) -> Result<String, String> {
        let path = format!("/proc/{}/{file}", self.process.id());
        fs::read_to_string(&path).map_err(|error| format!("{}: cannot read {path}: {error}", self.name))
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// It does not end, or not with status 0.
    pub fn stop(mut self) -> Result<(), String> {
        let _ = kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM);
        let asked = Instant::now();
        while asked.elapsed() < STOP {
            match self.process.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(format!("{} ended with {status}; its last lines:\n{}", self.name, self.last_lines()));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(format!("{} did not stop within {STOP:?}", self.name))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
