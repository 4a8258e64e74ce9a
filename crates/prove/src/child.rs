//! Child processes, each with its output in a file.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child as Process, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// From the start to the line of the log that reports readiness. It takes 0.1 s on an idle machine.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A child process. It is killed when this is dropped.
pub(crate) struct Child {
    name: String,
    process: Process,
    log: PathBuf,
}

impl Child {
    /// Starts a process. Its output is appended to `NAME.log` in this folder.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(crate) fn start(mut command: Command, name: &str, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        let process = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), process, log })
    }

    /// Waits for a line of the log, from the byte `from` on, that contains `text`.
    ///
    /// # Errors
    /// When the process ends first, or does not write it within a minute; with the last lines of the log.
    pub(crate) async fn wait_for_line(&mut self, from: u64, text: &str) -> Result<String> {
        let begun = Instant::now();
        loop {
            let written = fs::read(&self.log)?;
            let new = written.get(usize::try_from(from)?..).unwrap_or_default();
            let new = String::from_utf8_lossy(new);
            // The last line may be incomplete.
            let complete = new.rfind('\n').and_then(|end| new.get(..end)).unwrap_or_default();
            if let Some(line) = complete.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = self.process.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, last_lines(&new));
            }
            if begun.elapsed() > START {
                bail!("{} has not written {text:?} within {START:?}:\n{}", self.name, last_lines(&new));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// When the state of the process cannot be read.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has ended and was waited for.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid().cast_signed()), signal)
            .map_err(|error| anyhow!("{}: {signal}: {error}", self.name))
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub(crate) async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > limit {
                bail!("{} still runs {limit:?} later", self.name);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Resident memory in bytes, and open files; `None` if the process has ended or this system has no `/proc`.
    pub(crate) fn usage(&self) -> Option<(u64, usize)> {
        let folder = PathBuf::from(format!("/proc/{}", self.pid()));
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some((kilobytes * 1024, fs::read_dir(folder.join("fd")).ok()?.count()))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A stopped process dies too.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The size of the log of the process `name`; 0 if it has none yet.
pub(crate) fn log_size(folder: &Path, name: &str) -> u64 {
    fs::metadata(folder.join(format!("{name}.log"))).map_or(0, |file| file.len())
}

/// Counts these lines of a file.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn count_lines_with(path: &Path, counts: impl Fn(&str) -> bool) -> Result<usize> {
    let mut found = 0;
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        found += usize::from(counts(&line));
    }
    Ok(found)
}

fn last_lines(text: &str) -> String {
    const SHOWN: usize = 20;
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default().join("\n")
}
