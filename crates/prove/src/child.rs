//! Child processes: started, watched through their output, measured and stopped. The benchmark and the tests use them too.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child as Process, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use runtime::mutex::lock;

use crate::cpu;

/// The limit of a wait for a line. From its start to its readiness, a process takes 0.1 s on an idle machine.
const LINE_TIMEOUT: Duration = Duration::from_secs(60);
/// The limit from SIGTERM to the end of a process, with its grace period of 25 s.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// The limit for reading what a process left in its pipes, which takes far less. Its own children may keep them open.
const READ_REST: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// A child process. It is killed when this is dropped.
pub struct Child {
    name: String,
    process: Process,
    output: Output,
}

/// Where the output of a process is.
enum Output {
    /// In a file that outlives the process, from the byte `begin` on.
    File { path: PathBuf, begin: u64 },
    /// In memory. The threads read it from the pipes.
    Memory { lines: Arc<Mutex<Vec<String>>>, readers: Vec<JoinHandle<()>> },
}

impl Child {
    /// Starts a process. All its output is appended to `NAME.log` in this folder.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(crate) fn start(mut command: Command, name: &str, folder: &Path) -> Result<Self> {
        let path = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&path)?;
        let begin = file.metadata()?.len();
        command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
        let process = spawn(&mut command)?;
        Ok(Self { name: name.to_owned(), process, output: Output::File { path, begin } })
    }

    /// Starts a process with the input of the command. Its output is kept in memory: standard output, and standard error if
    /// the command pipes it. Of
    /// more than `kept` lines, those in the middle are dropped.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start_piped(mut command: Command, name: &str, kept: usize) -> Result<Self> {
        let mut process = spawn(command.stdout(Stdio::piped()))?;
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            process.stdout.take().map(|stream| Box::new(stream) as _),
            process.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        let read = |stream: Box<dyn Read + Send>| {
            let lines = lines.clone();
            std::thread::spawn(move || keep_lines(stream, kept, &lines))
        };
        let readers = streams.into_iter().flatten().map(read).collect();
        Ok(Self { name: name.to_owned(), process, output: Output::Memory { lines, readers } })
    }

    /// The output so far.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn log(&self) -> Result<String> {
        match &self.output {
            Output::File { path, begin } => {
                let bytes = fs::read(path)?;
                let own = bytes.get(usize::try_from(*begin)?..).unwrap_or_default();
                Ok(String::from_utf8_lossy(own).into_owned())
            }
            Output::Memory { lines, .. } => Ok(lock(lines).join("\n")),
        }
    }

    /// Waits for a line of the output that contains `text`, and returns it.
    ///
    /// # Errors
    /// When the process ends first, or does not write it within a minute; with the last lines of the output.
    pub async fn wait_for_line(&mut self, text: &str) -> Result<String> {
        let begun = Instant::now();
        loop {
            // Checked before the output, because a process may write the line and end at once.
            let ended = self.process.try_wait()?;
            if ended.is_some() {
                self.read_rest().await;
            }
            if let Some(line) = self.find_line(text)? {
                return Ok(line);
            }
            if let Some(status) = ended {
                bail!("{} ended with {status} and has not written {text:?}:\n{}", self.name, self.last_lines()?);
            }
            if begun.elapsed() > LINE_TIMEOUT {
                bail!("{} has not written {text:?} within {LINE_TIMEOUT:?}:\n{}", self.name, self.last_lines()?);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn find_line(&self, text: &str) -> Result<Option<String>> {
        match &self.output {
            Output::File { .. } => {
                let log = self.log()?;
                // The last line may be incomplete.
                let complete = log.rsplit_once('\n').map_or("", |(complete, _)| complete);
                Ok(complete.lines().find(|line| line.contains(text)).map(str::to_owned))
            }
            Output::Memory { lines, .. } => {
                let lines = lock(lines);
                Ok(lines.iter().find(|line| line.contains(text)).cloned())
            }
        }
    }

    fn last_lines(&self) -> Result<String> {
        const SHOWN: usize = 20;
        let log = self.log()?;
        let lines: Vec<&str> = log.lines().collect();
        Ok(lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default().join("\n"))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// When the state of the process cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid().cast_signed()), signal)
            .map_err(|error| anyhow!("{}: {signal}: {error}", self.name))
    }

    /// Waits for the end of the process and of its output.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                self.read_rest().await;
                return Ok(status);
            }
            if begun.elapsed() > limit {
                bail!("{} still runs {limit:?} later", self.name);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends SIGTERM, unless the process has ended, and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time, or not with status 0; with the last lines of the output.
    pub async fn stop(&mut self) -> Result<()> {
        if self.is_running()? {
            self.signal(Signal::SIGTERM)?;
        }
        let status = self.wait(STOP_TIMEOUT).await?;
        if !status.success() {
            bail!("{} ended with {status}; its last lines:\n{}", self.name, self.last_lines()?);
        }
        Ok(())
    }

    /// Waits until the output of a process that has ended is read from its pipes.
    async fn read_rest(&self) {
        let Output::Memory { readers, .. } = &self.output else { return };
        let begun = Instant::now();
        while readers.iter().any(|reader| !reader.is_finished()) && begun.elapsed() < READ_REST {
            tokio::time::sleep(POLL).await;
        }
    }

    /// CPU time used so far by all threads.
    ///
    /// # Errors
    /// When the process has ended, or this system has no `/proc`.
    pub fn cpu(&self) -> Result<Duration> {
        cpu::of_process(self.pid()).with_context(|| self.name.clone())
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the process has ended, or this system has no `/proc`.
    pub fn memory(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).with_context(|| format!("{}: cannot read {path}", self.name))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|text| text.parse::<u64>().ok());
        kilobytes.map(|kb| kb * 1024).with_context(|| format!("{}: cannot parse its memory in /proc", self.name))
    }

    /// The number of open files.
    ///
    /// # Errors
    /// When the process has ended, or this system has no `/proc`.
    pub(crate) fn open_files(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A stopped process dies too.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Removes this process's environment from a command, except for these variables.
pub fn inherit_only(command: &mut Command, variables: &[&str]) {
    command.env_clear();
    for inherited in variables {
        command.envs(std::env::var(inherited).map(|value| (inherited, value)));
    }
}

/// The address in the line of the log with which an API reports that it listens.
///
/// # Errors
/// When the line has no address.
pub fn listen_address(line: &str) -> Result<std::net::SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line)?;
    let address = line["address"].as_str().and_then(|address| address.parse().ok());
    address.context("the log of the API has no address")
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

fn spawn(command: &mut Command) -> Result<Process> {
    let spawned = command.spawn();
    spawned.with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// Reads a stream to its end, and keeps its first and its last lines.
fn keep_lines(stream: impl Read, kept: usize, lines: &Mutex<Vec<String>>) {
    for line in BufReader::with_capacity(1 << 16, stream).lines().map_while(Result::ok) {
        let mut lines = lock(lines);
        if lines.len() >= kept.max(1) {
            lines.remove(kept / 2);
        }
        lines.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stderr(Stdio::piped());
        command
    }

    #[tokio::test]
    async fn a_line_is_found_although_the_process_ends_at_once() {
        let mut child = Child::start_piped(shell("echo one; echo two words; exit 3"), "sh", 100).expect("a process");
        assert_eq!(child.wait_for_line("words").await.expect("a line"), "two words");
        let error = child.wait_for_line("three").await.expect_err("it is not written").to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("one\ntwo words"), "{error}");
        let error = child.stop().await.expect_err("another status than 0").to_string();
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[tokio::test]
    async fn the_first_and_the_last_lines_are_kept() {
        let script = "i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo $i; done";
        let mut child = Child::start_piped(shell(script), "sh", 6).expect("a process");
        assert!(child.wait(LINE_TIMEOUT).await.expect("an end").success());
        assert_eq!(child.log().expect("its output"), "1\n2\n3\n48\n49\n50");
    }

    #[tokio::test]
    async fn a_restarted_process_appends_to_the_file_and_sees_its_own_lines() {
        let folder = std::env::temp_dir().join(format!("prove-child-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        for line in ["first", "second"] {
            let script = format!("echo {line}; echo >&2 error");
            let mut child = Child::start(shell(&script), "sh", &folder).expect("a process");
            child.wait_for_line(line).await.expect("its line");
            child.wait(LINE_TIMEOUT).await.expect("an end");
            assert_eq!(child.log().expect("its output"), format!("{line}\nerror\n"));
        }
        assert_eq!(count_lines_with(&folder.join("sh.log"), |line| line == "error").expect("a file"), 2);
        fs::remove_dir_all(&folder).expect("the folder is removed");
    }
}
