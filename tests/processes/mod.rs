//! Tests of the processes: configuration errors at the start, health, sessions, schema and the all-in-one.

mod all_in_one;
mod bench;
mod browsers;
mod configuration;
mod conventions;
mod env_file;
mod health;
mod keys;
mod plans;
mod prove;
mod schema;
mod sessions;

use std::time::Duration;

use crate::harness::process::Process;

/// A long deadline, because a machine may start ten processes at once.
const SOON: Duration = Duration::from_secs(20);

/// Runs a command that ends by itself. Returns whether it succeeded, and its output.
async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut process = Process::start(arguments, variables);
    let status = process.wait_for_exit(SOON).await;
    assert!(status.code().is_some(), "{arguments:?} was killed: {status}");
    (status.success(), process.log())
}

/// Runs a command that must refuse to start. Returns the reported variables and problems, in order.
async fn startup_problems(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let (succeeded, log) = run(arguments, variables).await;
    assert!(!succeeded, "{arguments:?} with {variables:?}: {log}");
    let (_, problems) = log.split_once("cannot run:\n").unwrap_or_else(|| panic!("no list of problems: {log}"));
    let problem = |line: &str| {
        let (name, what) = line.trim().split_once(": ").unwrap_or_else(|| panic!("no variable in {line:?}"));
        (name.to_owned(), what.to_owned())
    };
    problems.lines().map(problem).collect()
}
