//! Start and end of every process: the async runtime, the list of start problems, and the wait for the database.

use std::{fmt::Display, process::ExitCode, time::Duration};

use super::{
    db::{Database, Pool},
    diagnose,
    migrate::{self, SchemaError},
    shutdown::Shutdown,
};
use crate::{
    config::{self, EnvFile},
    error::causes,
};

/// The pause between two attempts to reach the database at start.
const RETRY: Duration = Duration::from_secs(1);

/// How long tasks and blocking threads may still run after the program has ended. After that they are abandoned.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a program to its end. If it fails, prints the problems to standard error, one per line.
pub fn run(name: &str, program: impl Future<Output = Result<(), impl Display>>) -> ExitCode {
    // ring is the only TLS library in the build. A provider that is already installed stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(error_text);
    let result = runtime.and_then(|runtime| {
        let result = runtime.block_on(program).map_err(error_text);
        // A plain drop would wait without limit for threads that a job blocks.
        runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{name} cannot run:");
            problem.lines().for_each(|line| eprintln!("  {line}"));
            ExitCode::FAILURE
        }
    }
}

/// Logs the configuration of this process: its `.env` file, its database without the password, and a warning for each
/// unknown variable.
pub fn log_configuration(database: &Database) {
    let file = EnvFile::of_working_folder();
    if let Some(path) = &file.path {
        tracing::info!(file = %path.display(), variables = file.len(), "variables read from .env");
    }
    for note in config::unknown_variables() {
        tracing::warn!(note, "unknown variable");
    }
    tracing::info!(%database, "the database of this process");
}

/// Waits for the database and checks that it has the schema of this release. Returns `false` if a stop is requested
/// meanwhile.
///
/// # Errors
/// When the database has another schema, which a wait does not correct.
pub async fn await_schema(pool: &Pool, shutdown: &Shutdown) -> Result<bool, SchemaError> {
    loop {
        match migrate::check(pool).await {
            Ok(()) => return Ok(true),
            Err(SchemaError::Unreadable(error)) => {
                tracing::warn!(error = causes(&error), hint = diagnose::hint(&error), "waiting for the database");
            }
            Err(mismatch) => return Err(mismatch),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.drain.cancelled() => return Ok(false),
        }
    }
}

/// The text of an error, in the form that [`run`] prints.
pub fn error_text(error: impl Display) -> String {
    error.to_string()
}
