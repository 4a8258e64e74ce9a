//! `millrace migrate`: the only place from which a production schema changes.

use std::time::Duration;

use clap::Args;
pub use jobs::boot::migrate::PATIENCE;
use jobs::{
    app,
    boot::{db::Database, migrate, process, telemetry::Telemetry},
    config::Vars,
    error::causes,
    users::Users,
};

#[derive(Args)]
pub struct Arguments {
    /// How many seconds a migration whose tables are in use is tried again, before this gives up
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs())]
    patience: u64,
}

/// Applies the migrations to `DATABASE_URL`.
///
/// # Errors
/// What is wrong with the configuration, or the first migration that failed.
pub async fn program(arguments: Arguments) -> Result<(), String> {
    let mut vars = Vars::from_env();
    let config = app::Config::read(&mut vars);
    let database = app::require_database(&mut vars, &config);
    let Some(database) = vars.finish(database).map_err(process::text)? else { return Ok(()) };
    let _telemetry = Telemetry::start(&config.telemetry, "migrate")?;
    if !database.has_sessions() {
        // What keeps two of these from running at once is a lock of the session.
        return Err("migrate: DATABASE_URL must be the database itself, without DATABASE_POOLER".into());
    }
    apply(&database, Duration::from_secs(arguments.patience)).await
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
