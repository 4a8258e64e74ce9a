//! `.ci/containers/run` says what it does and what it misses. The containers themselves take minutes, so a step of `.ci/run` runs them.

use std::{fs, os::unix::fs::symlink, process::Command};

use super::{read, root, run};
use crate::harness::{needs, scratch::Scratch};

fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(root().join(".ci/containers/run")).env("CONTAINERS_ENGINE", "own");
    command
}

#[test]
fn an_unknown_case_lists_all_cases() {
    let (succeeded, output) = run(script().arg("meteorite"));
    assert!(!succeeded && output.contains("no case meteorite") && output.contains("smart_contract"), "{output}");
}

/// That is no failure of the product, and the reason is printed.
#[test]
fn a_machine_without_an_engine_does_not_run_it() {
    let tools = Scratch::new();
    for name in ["bash", "cp", "dirname", "id", "mkdir", "mktemp", "rm", "sed"] {
        let Some(program) = needs::program(name) else { return };
        symlink(fs::canonicalize(program).expect("a program"), tools.join(name)).expect("a link");
    }
    let (succeeded, output) = run(script().env("PATH", &*tools));
    assert!(succeeded && output.contains("NOT RUN: it needs ") && output.contains("dockerd"), "{output}");
}

#[test]
fn every_case_exists() {
    let (script, cases) = (read(".ci/containers/run"), read(".ci/containers/cases"));
    let list = script.lines().find_map(|line| line.strip_prefix("readonly CASES=\"")).expect("a list");
    let mut listed: Vec<&str> = list.trim_end_matches('"').split(' ').chain(["image"]).collect();
    let mut found: Vec<&str> =
        cases.lines().filter_map(|line| line.strip_prefix("case_")?.strip_suffix("() {")).collect();
    listed.sort_unstable();
    found.sort_unstable();
    assert_eq!(listed, found);
}
