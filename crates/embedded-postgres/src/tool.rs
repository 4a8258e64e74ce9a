//! Runs a short-lived program with a time limit.

use super::error::Error;
use std::{
    process::{Output, Stdio},
    time::Duration,
};
use tokio::process::Command;

/// Runs a program and returns its output, standard output first.
///
/// # Errors
/// When the program cannot be started, exits with an error, or takes longer than `limit`; then it is killed.
pub(super) async fn run(command: &mut Command, limit: Duration) -> Result<String, Error> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let fail = |reason: String| Error::Tool { program: program.clone(), reason };
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(limit, command.output()).await {
        Err(_) => Err(fail(format!("killed after the time limit of {} s", limit.as_secs()))),
        Ok(Err(error)) => Err(fail(error.to_string())),
        Ok(Ok(output)) if output.status.success() => Ok(output_text(&output)),
        Ok(Ok(output)) => Err(fail(format!("{}\n{}", output.status, output_text(&output).trim()))),
    }
}

fn output_text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}
