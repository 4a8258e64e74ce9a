//! The processes themselves: what they refuse to start with, how they say that they are well, and the all-in-one.

mod all_in_one;
mod bench;
mod browsers;
mod configuration;
mod env_file;
mod health;
mod keys;
mod plans;
mod schema;
mod sessions;

use std::time::Duration;

use crate::harness::process::Process;

/// Generous: a machine may be starting ten of them at once.
const SOON: Duration = Duration::from_secs(20);

/// Runs a command that is expected to end by itself; whether it succeeded, and everything it said.
async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut process = Process::start(arguments, variables);
    let status = process.wait_for_exit(SOON).await;
    assert!(status.code().is_some(), "{arguments:?} was killed: {status}");
    (status.success(), process.log())
}

/// The problems with which a command refuses to start, by variable, in order.
async fn refusals(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let (succeeded, log) = run(arguments, variables).await;
    assert!(!succeeded, "{arguments:?} with {variables:?}: {log}");
    let (_, problems) = log.split_once("cannot run:\n").unwrap_or_else(|| panic!("no refusal: {log}"));
    let problem = |line: &str| {
        let (name, what) = line.trim().split_once(": ").unwrap_or_else(|| panic!("no variable: {line:?}"));
        (name.to_owned(), what.to_owned())
    };
    problems.lines().map(problem).collect()
}
