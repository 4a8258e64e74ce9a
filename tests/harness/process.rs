//! The real binary as a child process: started on a free port, stopped by any signal. A failed test prints its log.

use std::{
    io::{BufRead, BufReader},
    net::IpAddr,
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::eventually;

/// A start takes 0.1 s; the rest is for a machine that starts ten processes at once.
const START: Duration = Duration::from_secs(30);

/// Reading the rest of a pipe takes far less.
const READ_REST: Duration = Duration::from_secs(2);

/// The variables that a child process inherits: paths of programs, settings of the test run, the time zone and the moved
/// clock of `.ci/at`.
const INHERITED: [&str; 11] = [
    "PATH",
    "HOME",
    "PG_BIN_DIR",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "TMPDIR",
    "SSL_CERT_FILE",
    "LLVM_PROFILE_FILE",
    "TZ",
    "LD_PRELOAD",
    "CLOCK_OFFSET_S",
];

/// A child process; killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Process {
    /// Starts `millrace` with these arguments and variables, and without this process's configuration.
    pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_in(std::path::Path::new("/"), arguments, variables)
    }

    /// Starts `millrace` in this folder.
    pub(crate) fn start_in(folder: &std::path::Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.args(arguments).current_dir(folder);
        Self::run(arguments.first().unwrap_or(&"all-in-one"), command, variables)
    }

    /// Starts any program with these variables, and without this process's configuration.
    pub(crate) fn run(name: &str, command: Command, variables: &[(&str, &str)]) -> Self {
        Self::spawn(name, command, variables, Stdio::null())
    }

    /// Starts any program, which can see from the end of its input that this process has ended.
    pub(crate) fn run_with_input(name: &str, command: Command, variables: &[(&str, &str)]) -> (Self, ChildStdin) {
        let mut process = Self::spawn(name, command, variables, Stdio::piped());
        let input = process.child.stdin.take().expect("the input of a program");
        (process, input)
    }

    fn spawn(name: &str, mut command: Command, variables: &[(&str, &str)], input: Stdio) -> Self {
        command.env_clear();
        for name in INHERITED {
            if let Ok(value) = std::env::var(name) {
                command.env(name, value);
            }
        }
        // A separate process group, so that Ctrl-C stops the test run without a signal to the process under test.
        command.envs(variables.iter().copied()).process_group(0);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] =
            [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
        let read = |stream: Box<dyn std::io::Read + Send>| {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    lines.lock().unwrap().push(line);
                }
            })
        };
        let readers = streams.into_iter().flatten().map(read).collect();
        Self { name: name.to_owned(), child, lines, readers }
    }

    /// All output so far.
    pub(crate) fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("a process to signal");
    }

    /// Returns whether the process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child process").is_none()
    }

    /// Waits until the process has ended.
    pub(crate) async fn wait_for_exit(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} has ended", self.name);
        eventually(&what, deadline, async || !self.is_running()).await;
        // The last output may still be in the pipes. A process that it left behind may keep them open.
        let begun = std::time::Instant::now();
        while self.readers.iter().any(|reader| !reader.is_finished()) && begun.elapsed() < READ_REST {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.child.wait().expect("a status")
    }

    /// Waits for a line of output that contains this text, and returns the line.
    pub(crate) async fn wait_for_line(&mut self, text: &str) -> String {
        let begun = std::time::Instant::now();
        loop {
            if let Some(line) = self.lines.lock().unwrap().iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            assert!(self.is_running(), "{} ended without printing {text:?}:\n{}", self.name, self.log());
            assert!(begun.elapsed() < START, "{} has not printed {text:?}:\n{}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}\n---", self.name, self.log());
        }
    }
}

/// An API process and its address.
pub(crate) struct Api {
    pub process: Process,
    /// `http://127.0.0.1:PORT`
    pub url: String,
}

impl Api {
    /// Starts a process on a free port and waits until it serves.
    pub(crate) async fn start(database: &str, variables: &[(&str, &str)]) -> Self {
        let fixed = [("DATABASE_URL", database), ("PORT", "0"), ("LOG_FORMAT", "json")];
        let mut process = Process::start(&["api"], &[&fixed[..], variables].concat());
        let line = process.wait_for_line(r#""event":"listening""#).await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("a JSON line");
        let url = format!("http://{}", line["address"].as_str().expect("an address"));
        Self { process, url }
    }
}

/// Starts a worker and waits until it is ready.
pub(crate) async fn start_worker(database: &str, variables: &[(&str, &str)]) -> Process {
    let fixed = [("DATABASE_URL", database), ("LOG_FORMAT", "json")];
    let mut process = Process::start(&["worker"], &[&fixed[..], variables].concat());
    process.wait_for_line("worker started").await;
    process
}

/// Installs the TLS provider, as every process of Millrace does first. For features that run inside the test process.
pub(crate) fn install_tls() {
    static TLS: std::sync::Once = std::sync::Once::new();
    TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// The HTTP client of every test: it uses no proxy and has a time-out.
pub(crate) fn http_client() -> reqwest::Client {
    install_tls();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(90)).build().expect("a client")
}

/// A client with its own address: on Linux, all of 127/8 is this machine.
pub(crate) fn client_at(number: u8) -> reqwest::Client {
    install_tls();
    reqwest::Client::builder().no_proxy().local_address(IpAddr::from([127, 0, 1, number])).build().expect("a client")
}
