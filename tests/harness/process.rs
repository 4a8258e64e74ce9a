//! The real binary as a child process: started on a free port, stopped by any signal. A failed test prints its log.

use std::{
    io::PipeWriter,
    net::IpAddr,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use prove::child::{self, Child};

use super::http::send_until;

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
pub(crate) struct Process(Child);

impl Process {
    /// Starts `millrace` with these arguments and variables, and without this process's configuration.
    pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_in(Path::new("/"), arguments, variables)
    }

    /// Starts `millrace` in this folder.
    pub(crate) fn start_in(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.args(arguments).current_dir(folder);
        Self::run(arguments.first().unwrap_or(&"all-in-one"), command, variables)
    }

    /// Starts any program with these variables, and without this process's configuration.
    pub(crate) fn run(name: &str, mut command: Command, variables: &[(&str, &str)]) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(name, command, variables)
    }

    /// Starts any program, which can see from the end of its input that this process has ended.
    pub(crate) fn run_with_input(name: &str, mut command: Command, variables: &[(&str, &str)]) -> (Self, PipeWriter) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        command.stdin(reader);
        (Self::spawn(name, command, variables), writer)
    }

    fn spawn(name: &str, mut command: Command, variables: &[(&str, &str)]) -> Self {
        child::inherit_only(&mut command, &INHERITED);
        // A separate process group, so that Ctrl-C stops the test run without a signal to the process under test.
        command.envs(variables.iter().copied()).process_group(0).stderr(Stdio::piped());
        Self(Child::start_piped(command, name, usize::MAX).unwrap_or_else(|error| panic!("{error:#}")))
    }

    /// All output so far.
    pub(crate) fn log(&self) -> String {
        self.0.log().expect("the output")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.0.signal(signal).expect("a process to signal");
    }

    /// Returns whether the process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.0.is_running().expect("a child process")
    }

    /// Waits until the process has ended.
    pub(crate) async fn wait_for_exit(&mut self, deadline: Duration) -> ExitStatus {
        self.0.wait(deadline).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Waits for a line of output that contains this text, and returns the line.
    pub(crate) async fn wait_for_line(&mut self, text: &str) -> String {
        self.0.wait_for_line(text).await.unwrap_or_else(|error| panic!("{error:#}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}\n---", self.0.name(), self.0.log().unwrap_or_default());
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
        let url = format!("http://{}", child::listen_address(&line).expect("an address"));
        Self { process, url }
    }

    /// Waits until the process is ready. A check of readiness that takes 2 s fails, as it may on a busy machine.
    pub(crate) async fn wait_until_ready(&self) {
        let response =
            send_until(http_client().get(format!("{}/readyz", self.url)), |response| response.status == 200).await;
        assert_eq!(response.status, 200, "{response:?}");
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
