//! `.ci/high-availability/run` says what it does and what it misses. The cluster itself takes minutes, so `.ci/run` runs it.

use std::{fs, os::unix::fs::symlink, process::Command};

use super::{root, run};
use crate::harness::{needs, scratch::Scratch};

fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(root().join(".ci/high-availability/run")).env_remove("REQUIRE_SERVERS");
    command
}

#[test]
fn an_unknown_case_lists_all_cases() {
    let (succeeded, output) = run(script().arg("meteorite"));
    assert!(!succeeded && output.contains("no case meteorite") && output.contains("leader-cut-off"), "{output}");
}

/// Missing programs are reported, and are a failure only where nothing may be skipped.
#[test]
fn a_machine_without_patroni_does_not_run_it() {
    let tools = Scratch::new();
    for name in ["bash", "dirname", "id", "ls", "sort", "tail"] {
        let Some(program) = needs::program(name) else { return };
        symlink(fs::canonicalize(program).expect("a program"), tools.join(name)).expect("a link");
    }
    let (succeeded, output) = run(script().env("PATH", &*tools));
    assert!(succeeded && output.contains("not run (needs ") && output.contains("patroni"), "{output}");
    let (succeeded, output) = run(script().env("PATH", &*tools).env("REQUIRE_SERVERS", "1"));
    assert!(!succeeded && output.contains("patroni"), "{output}");
}
