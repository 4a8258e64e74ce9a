//! `millrace migrate`: the only place from which a production schema changes.

use std::time::{Duration, Instant};

use clap::Args;
pub use jobs::boot::migrate::PATIENCE;
use jobs::{
    app,
    boot::{
        db::Database,
        migrate::{self, Status},
        process,
        telemetry::Telemetry,
    },
    config::EnvReader,
    error::causes,
    users::Users,
};

/// Between two tries to reach a database that is not there yet.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct Arguments {
    /// How many seconds a migration whose tables are in use is tried again, before this gives up
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs())]
    patience: u64,
    /// Show which migrations are missing, and change nothing; fails unless the schema is this program's
    #[arg(long)]
    status: bool,
    /// Wait up to this many seconds for a database that cannot be reached; with --status, also for its migration by
    /// another process
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
    wait: Option<u64>,
}

/// Applies the migrations to `DATABASE_URL`.
///
/// # Errors
/// What is wrong with the configuration, or the first migration that failed.
pub async fn program(arguments: Arguments) -> Result<(), String> {
    let mut vars = EnvReader::from_env();
    let config = app::Config::read(&mut vars);
    let database = app::require_database(&mut vars, &config);
    let Some(database) = vars.finish(database).map_err(process::text)? else { return Ok(()) };
    let _telemetry = Telemetry::start(&config.telemetry, "migrate")?;
    process::announce(&database);
    if !database.has_sessions() {
        // What keeps two of these from running at once is a lock of the session.
        return Err("migrate: DATABASE_URL must be the database itself, without DATABASE_POOLER".into());
    }
    let found = look(&database, Duration::from_secs(arguments.wait.unwrap_or(0)), arguments.status).await?;
    match arguments.status {
        true => show(&found),
        false => apply(&database, Duration::from_secs(arguments.patience)).await,
    }
}

/// Looks at the database, for as long as `patience` while it cannot be reached; and, `until_fitting`, while migrations
/// are missing.
async fn look(database: &Database, patience: Duration, until_fitting: bool) -> Result<Status, String> {
    let (pool, begun) = (database.pool("migrate", 1), Instant::now());
    let mut said = String::new();
    loop {
        let found = migrate::status(&pool).await;
        let reason = match &found {
            Ok(status) if until_fitting && !status.missing.is_empty() => {
                format!("{} migrations are missing", status.missing.len())
            }
            Err(error) if error.may_pass() => error.to_string(),
            _ => return found.map_err(|error| format!("migrations: {error}")),
        };
        if begun.elapsed() + RETRY > patience {
            return found.map_err(|error| format!("migrations: {error}"));
        }
        if reason != said {
            tracing::warn!(reason, "waiting for the database");
            said = reason;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Prints which migrations are missing.
///
/// # Errors
/// When any is, or the schema is another one.
fn show(status: &Status) -> Result<(), String> {
    let Status { applied, missing, misfit } = status;
    let mut text = format!("{applied} migrations applied, {} missing\n", missing.len());
    missing.iter().for_each(|(version, name)| text.push_str(&format!("  {version} {name}\n")));
    crate::operator::print(&text)?;
    match misfit {
        Some(misfit) => Err(misfit.to_string()),
        None if missing.is_empty() => Ok(()),
        None => {
            Err(format!("the database is not migrated ({} migrations missing): run `millrace migrate`", missing.len()))
        }
    }
}

/// Applies what is missing.
///
/// # Errors
/// The first migration that failed.
pub async fn apply(database: &Database, patience: Duration) -> Result<(), String> {
    let pool = database.pool("migrate", 1);
    let applied = migrate::run_to(&pool, None, patience).await.map_err(|error| format!("migrations: {error}"));
    // What SQL cannot compute.
    let keyed = match &applied {
        Ok(_) => Users::add_missing_keys(&pool).await.map_err(|error| format!("account keys: {}", causes(&error))),
        Err(_) => Ok(0),
    };
    pool.close().await;
    applied?;
    keyed?;
    tracing::info!("the database has this program's schema");
    Ok(())
}
