//! What users expect of any program: output, signals, and generated files.

use std::{
    fs::File,
    process::{Command, Output, Stdio},
};

use nix::sys::signal::Signal;

use super::{SOON, run};
use crate::harness::{
    database,
    http::send,
    process::{Api, Process, http_client},
};

fn millrace(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(arguments).env_clear().current_dir("/");
    command
}

/// Commands that print without a database.
const PRINTING: [&[&str]; 5] =
    [&["--help"], &["jobs", "list", "--help"], &["--version"], &["completions", "bash"], &["man"]];

/// Commands that print what they have read from the database.
const PRINTING_FROM_DATABASE: [&[&str]; 3] = [&["queues"], &["status", "--json"], &["audit"]];

#[tokio::test]
async fn a_full_device_fails_every_command_that_prints() {
    let database = database::fresh().await;
    for arguments in PRINTING.into_iter().chain(PRINTING_FROM_DATABASE) {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let mut command = millrace(arguments);
        command.env("DATABASE_URL", &database.url).stdout(full);
        let Output { status, stderr, .. } = command.output().expect("a process");
        let errors = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains("standard output: No space left on device"), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    for arguments in PRINTING {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let Output { status, stderr, .. } = millrace(arguments).stdout(writer).output().expect("a process");
        assert!(status.success() && stderr.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    }
}

#[test]
fn wrong_arguments_are_reported_on_standard_error() {
    let Output { status, stdout, stderr } = millrace(&["jbos"]).stdin(Stdio::null()).output().expect("a process");
    assert_eq!((status.code(), stdout.is_empty()), (Some(2), true));
    assert!(String::from_utf8_lossy(&stderr).contains("'jobs'"), "a similar command is named");
}

#[tokio::test]
async fn completions_and_the_manual_page_name_the_commands() {
    for arguments in [&["completions", "bash"][..], &["completions", "zsh"], &["completions", "fish"], &["man"]] {
        let (succeeded, text) = run(arguments, &[]).await;
        assert!(succeeded && ["queues", "replays", "doctor"].iter().all(|name| text.contains(name)), "{arguments:?}");
    }
}

/// Starts an API process with SIGHUP handled in this way. Under `nohup`, this test run ignores it.
async fn start_api(url: &str, signal_handling: &str) -> Process {
    let mut command = Command::new("env");
    command.args([signal_handling, env!("CARGO_BIN_EXE_millrace"), "api"]);
    let mut api = Process::run("api", command, &[("DATABASE_URL", url), ("PORT", "0")]);
    api.wait_for_line("listening").await;
    api
}

#[tokio::test]
async fn a_closed_terminal_stops_a_process_unless_it_ignores_that() {
    let database = database::fresh().await;
    let mut api = start_api(&database.url, "--default-signal=HUP").await;
    api.signal(Signal::SIGHUP);
    assert!(api.wait_for_exit(SOON).await.success(), "{}", api.log());

    let mut api = start_api(&database.url, "--ignore-signal=HUP").await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", api.pid())).expect("a status");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim).expect("ignored signals");
    let ignored = u64::from_str_radix(ignored, 16).expect("a mask");
    assert_eq!(ignored & 1, 1, "SIGHUP, the first signal, is still ignored: {status}");
    api.signal(Signal::SIGTERM);
    assert!(api.wait_for_exit(SOON).await.success(), "{}", api.log());
}

#[tokio::test]
async fn a_process_exports_its_release_and_its_resources() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[]).await;
    let metrics = send(http_client().get(format!("{}/metrics", api.url))).await.text;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name}: {metrics}"));
        line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok()).expect("a number")
    };
    assert!(
        (value(concat!("millrace_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"")) - 1.0).abs() < f64::EPSILON
    );
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "process_threads",
    ] {
        assert!(value(name) > 0.0, "{name}");
    }
}
