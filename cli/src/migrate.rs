//! `millrace migrate`: applies the database migrations. No other command changes the schema in production.

use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow, bail};
use clap::Args;
use jobs::{app, users::Users};
pub(crate) use runtime::migrate::PATIENCE;
use runtime::{
    db::Database,
    error::causes,
    migrate::{self, Status},
    process,
    telemetry::Telemetry,
};

/// Pause between two attempts to connect.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Seconds to keep retrying a migration whose tables are locked
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs())]
    patience: u64,
    /// Show pending migrations and change nothing; fails unless the schema is that of this release
    #[arg(long)]
    status: bool,
    /// Wait up to this many seconds for the database to accept connections; with --status, also until another process
    /// has migrated it
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
    wait: Option<u64>,
}

/// Applies the migrations to `DATABASE_URL`, or shows which are pending.
///
/// # Errors
/// When the configuration is wrong, the database cannot be reached, or a migration fails.
pub(crate) async fn program(arguments: Arguments) -> Result<()> {
    let (config, database) = app::read_with_database()?;
    let _telemetry = Telemetry::start(&config.telemetry, "migrate").map_err(Error::msg)?;
    process::log_configuration(&database);
    if !database.has_sessions() {
        // A session-level advisory lock keeps two migrations from running at once; a transaction pooler would break it.
        bail!("migrate: DATABASE_URL must be the database itself, without DATABASE_POOLER");
    }
    let max_wait = Duration::from_secs(arguments.wait.unwrap_or(0));
    let status = wait_for_status(&database, max_wait, arguments.status).await?;
    match arguments.status {
        true => print_status(&status),
        false => apply(&database, Duration::from_secs(arguments.patience)).await,
    }
}

/// Reads the migration status. Retries for up to `max_wait` while the database cannot be reached and, with
/// `until_migrated`, while migrations are missing.
async fn wait_for_status(database: &Database, max_wait: Duration, until_migrated: bool) -> Result<Status> {
    let (pool, begun) = (database.pool("migrate", 1), Instant::now());
    let mut logged_reason = String::new();
    loop {
        let found = migrate::status(&pool).await;
        let reason = match &found {
            Ok(status) if until_migrated && !status.missing.is_empty() => {
                format!("{} migrations are missing", status.missing.len())
            }
            Err(error) if error.is_temporary() => error.to_string(),
            _ => return found.map_err(|error| anyhow!("migrations: {error}")),
        };
        if begun.elapsed() + RETRY > max_wait {
            return found.map_err(|error| anyhow!("migrations: {error}"));
        }
        if reason != logged_reason {
            tracing::warn!(reason, "waiting for the database");
            logged_reason = reason;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Prints how many migrations are applied, and which are missing.
///
/// # Errors
/// When a migration is missing, or the schema is not that of this release.
fn print_status(status: &Status) -> Result<()> {
    let Status { applied, missing, mismatch } = status;
    let mut text = format!("{applied} migrations applied, {} missing\n", missing.len());
    missing.iter().for_each(|(version, name)| text.push_str(&format!("  {version} {name}\n")));
    crate::output::print(&text)?;
    match mismatch {
        Some(mismatch) => bail!("{mismatch}"),
        None if missing.is_empty() => Ok(()),
        None => bail!("the database is not migrated ({} migrations missing): run `millrace migrate`", missing.len()),
    }
}

/// Applies the missing migrations.
///
/// # Errors
/// When the database cannot be reached or a migration fails; later migrations are not applied.
pub(crate) async fn apply(database: &Database, patience: Duration) -> Result<()> {
    let pool = database.pool("migrate", 1);
    let applied = async {
        migrate::run_to(&pool, None, patience).await.map_err(|error| anyhow!("migrations: {error}"))?;
        // The keys of accounts are computed in Rust: SQL has no function for it.
        Users::add_missing_keys(&pool).await.map_err(|error| anyhow!("account keys: {}", causes(&error)))
    };
    let applied = applied.await;
    pool.close().await;
    applied?;
    tracing::info!("the database schema is up to date");
    Ok(())
}
