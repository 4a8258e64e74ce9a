//! What every program of ours does before and after its own work: one runtime, one way to say that it cannot go on.

use std::{fmt::Display, process::ExitCode, time::Duration};

use sqlx::PgPool;

use super::{
    db::Database,
    diagnose,
    migrate::{self, SchemaError},
    shutdown::Shutdown,
};
use crate::{
    config::{self, EnvFile},
    error::causes,
};

/// Between two tries to reach a database that is not there yet.
const RETRY: Duration = Duration::from_secs(1);

/// What is left of a program when it has ended gets this long, which is for ever for what can end at all.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// Runs a program to its end. What it cannot go on with is printed to standard error, one problem a line.
pub fn run(name: &str, program: impl Future<Output = Result<(), String>>) -> ExitCode {
    // The only TLS there is in here; whoever installed one before us keeps it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(text);
    let ended = runtime().and_then(|runtime| {
        let ended = runtime.block_on(program);
        // Dropped instead, it would wait for threads that a job blocks for ever.
        runtime.shutdown_timeout(LAST_TASKS);
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{name} cannot run:");
            problem.lines().for_each(|line| eprintln!("  {line}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what a process works with: the file of variables that it has read, what is strange about the variables, and its
/// database, without the password.
pub fn announce(database: &Database) {
    let file = EnvFile::of_working_folder();
    if let Some(path) = &file.path {
        tracing::info!(file = %path.display(), variables = file.len(), "variables read from .env");
    }
    for note in config::unknown_variables() {
        tracing::warn!(note, "UNKNOWN_VARIABLE");
    }
    tracing::info!(%database, "the database of this process");
}

/// Waits for the database and makes sure that it has this program's schema; `false` when told to stop meanwhile.
///
/// # Errors
/// When the schema is another one: that does not pass by itself.
pub async fn await_schema(pool: &PgPool, shutdown: &Shutdown) -> Result<bool, SchemaError> {
    loop {
        match migrate::check(pool).await {
            Ok(()) => return Ok(true),
            Err(SchemaError::Unreadable(error)) => {
                tracing::warn!(error = causes(&error), hint = diagnose::hint(&error), "waiting for the database");
            }
            Err(misfit) => return Err(misfit),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.drain.cancelled() => return Ok(false),
        }
    }
}

/// The text of an error, for [`run`].
pub fn text(error: impl Display) -> String {
    error.to_string()
}
