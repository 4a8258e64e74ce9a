//! The worker process: runs jobs. Any number of workers may run, on any number of hosts.

pub mod config;
pub mod health;
pub mod registry;

use anyhow::{Error, Result};
use config::Config;
use health::HealthServer;
use jobs::app::App;
use queue::{Timing, Worker, schedule};
use runtime::{db::Database, open_files, process, shutdown, telemetry::Telemetry};

/// Reads the configuration from the environment and runs jobs until a stop signal arrives.
///
/// # Errors
/// When the configuration is wrong, the worker does not start, or it fails later. One problem a line.
pub async fn program() -> Result<()> {
    let config = Config::from_env()?;
    let telemetry = Telemetry::start(&config.jobs.telemetry, "worker").map_err(Error::msg)?;
    process::log_configuration(&config.database);
    open_files::raise_limit();
    let shutdown = shutdown::Shutdown::on_signals(shutdown::GRACE)?;
    let app = App::start(&config.database, &config.jobs, "worker", &shutdown.drain)?;
    // Serve health from the start, also while the worker waits for the database.
    let health = HealthServer::start(config.health, &app, app.metrics(telemetry.metrics()), &shutdown).await?;
    if !app.await_schema(&shutdown).await? {
        return Ok(());
    }
    let worker = start(&app, &config.database, config.jobs.timing, &shutdown)?;
    health.check_lease(worker.is_ready());
    Ok(worker.stopped().await?)
}

/// Starts the worker with every registered kind of job, and the scheduler.
///
/// # Errors
/// When the worker cannot be started.
pub fn start(app: &App, database: &Database, timing: Timing, shutdown: &shutdown::Shutdown) -> Result<Worker> {
    let worker = Worker::start(database, timing, registry::registry(app), shutdown)?;
    // The first two tasks stop as soon as the drain begins; the last three end with the process.
    tokio::spawn(app.clone().catch_up(shutdown.drain.clone()));
    tokio::spawn(app.schedules.clone().run(schedule::Timing::default(), shutdown.drain.clone()));
    tokio::spawn(app.transactions.clone().delete_expired_conflicts(timing.retention));
    tokio::spawn(app.transactions.clone().delete_expired_replays(timing.retention));
    tokio::spawn(app.transactions.clone().delete_expired_callbacks(timing.retention));
    Ok(worker)
}
