//! A short-lived program, run with a time limit.

use super::error::Error;
use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

/// Runs a program to its end and returns what it wrote, standard output first.
///
/// # Errors
/// It cannot be started, ends with anything but success, or takes longer than `limit` (it is killed then).
pub(super) async fn run(command: Command, limit: Duration) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let fail = |reason: String| Error::Tool { program: program.clone(), reason };
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(limit, command.output()).await {
        Err(_) => Err(fail(format!("not done after {} s, so it was stopped", limit.as_secs()))),
        Ok(Err(error)) => Err(fail(error.to_string())),
        Ok(Ok(output)) if output.status.success() => Ok(words(&output)),
        Ok(Ok(output)) => Err(fail(format!("{}\n{}", output.status, words(&output).trim()))),
    }
}

fn words(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}
