//! Child processes of the benchmark: Millrace's own programs, started and stopped as an operator does, and measured.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::cpu;

/// Limit from the start to the line of the log that reports readiness.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit from SIGTERM to the exit. No job runs then, so the process does not need its grace period.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How many of the last lines of the log an error message shows.
const LAST_LINES: usize = 20;

/// A child process; killed on drop.
pub(super) struct Child {
    name: String,
    process: std::process::Child,
    lines: Arc<Mutex<VecDeque<String>>>,
    ready_line: mpsc::Receiver<String>,
}

impl Child {
    /// Starts this executable with a subcommand and its options, and waits for the line of its log that contains `ready`.
    /// The child gets these variables, and not the configuration of this process.
    ///
    /// # Errors
    /// When the process does not start or does not get ready in time, with the last lines of its log.
    pub(super) fn start(
        arguments: &[&str],
        folder: &Path,
        variables: &[(&str, &str)],
        ready: &str,
    ) -> Result<(Self, String)> {
        let name = arguments.join(" ");
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).env_clear();
        command.env("LOG_FORMAT", "json").envs(variables.iter().copied());
        for inherited in ["PATH", "HOME", "RUST_LOG", "RUST_BACKTRACE", "TMPDIR"] {
            command.envs(std::env::var(inherited).map(|value| (inherited, value)));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().map_err(|error| anyhow!("{name} does not start: {error}"))?;
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, ready_line) = mpsc::channel();
        let (last_lines, ready) = (lines.clone(), ready.to_owned());
        let stdout = process.stdout.take();
        std::thread::spawn(move || {
            let mut sender = Some(sender);
            let lines = stdout.into_iter().flat_map(|out| BufReader::with_capacity(1 << 16, out).lines());
            for line in lines.map_while(Result::ok) {
                if sender.is_some() && line.contains(&ready) {
                    // The caller waits for one line only.
                    let _ = sender.take().map(|sender| sender.send(line.clone()));
                }
                let mut lines = last_lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == LAST_LINES {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
        });
        let child = Self { name: name.clone(), process, lines, ready_line };
        match child.ready_line.recv_timeout(START_TIMEOUT) {
            Ok(line) => Ok((child, line)),
            Err(_) => bail!("{name} did not get ready; its last lines:\n{}", child.last_lines()),
        }
    }

    fn last_lines(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// CPU time used so far by all threads.
    ///
    /// # Errors
    /// When `/proc/PID/stat` cannot be read.
    pub(super) fn cpu(&self) -> Result<Duration> {
        cpu::of_process(self.process.id()).with_context(|| self.name.clone())
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When `/proc/PID/status` cannot be read.
    pub(super) fn memory(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(&path).map_err(|error| anyhow!("{}: cannot read {path}: {error}", self.name))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|text| text.parse::<u64>().ok());
        kilobytes.map(|kb| kb * 1024).with_context(|| format!("{}: cannot parse its memory in /proc", self.name))
    }

    /// Sends SIGTERM and waits for the exit.
    ///
    /// # Errors
    /// When the process does not exit within [`STOP_TIMEOUT`], or not with status 0.
    pub(super) fn stop(mut self) -> Result<()> {
        let _ = kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM);
        let signalled = Instant::now();
        while signalled.elapsed() < STOP_TIMEOUT {
            match self.process.try_wait()? {
                None => std::thread::sleep(Duration::from_millis(10)),
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}; its last lines:\n{}", self.name, self.last_lines()),
            }
        }
        bail!("{} did not stop within {STOP_TIMEOUT:?}", self.name)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
