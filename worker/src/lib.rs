//! The worker process: runs the jobs, any number of it, on any host.
//!
//! | file | what |
//! |---|---|
//! | [`registry`] | every kind of job, one line each |
//! | [`config`] | what it can be told |
//! | [`health`] | `/livez`, `/readyz` and `/metrics` for whoever watches it |

pub mod config;
pub mod health;
pub mod registry;

use std::sync::{Arc, OnceLock};

use config::Config;
use jobs::{
    app::App,
    boot::{db::Database, open_files, process, shutdown, telemetry::Telemetry},
    queue::{Timing, Worker},
    schedule,
};

/// The whole program: reads the environment, works until it is told to stop.
///
/// # Errors
/// Why it could not start, or what ended it, one problem a line.
pub async fn program() -> Result<(), String> {
    let config = Config::from_env().map_err(process::text)?;
    let telemetry = Telemetry::start(&config.jobs.telemetry, "worker")?;
    process::announce(&config.database);
    open_files::raise();
    let shutdown = shutdown::Shutdown::on_signals(shutdown::GRACE).map_err(process::text)?;
    let app = App::start(&config.database, &config.jobs, "worker", &shutdown.drain).map_err(process::text)?;
    let lease = Arc::new(OnceLock::new());
    // Told from the start: also while it waits for the database.
    let health = match config.health {
        Some(address) => {
            let ready = health::Ready { app: app.clone(), lease: lease.clone(), shutdown: shutdown.clone() };
            Some(health::serve(address, ready, app.metrics(telemetry.metrics())).await?)
        }
        None => None,
    };
    if !app.await_schema(&shutdown).await.map_err(process::text)? {
        return Ok(());
    }
    let worker = start(&app, &config.database, config.jobs.timing, &shutdown)?;
    // Set here only.
    let _ = lease.set(Box::new(worker.is_ready()) as health::Lease);
    let ended = worker.stopped().await;
    if let Some(health) = health {
        health.abort();
    }
    ended.map_err(process::text)
}

/// Starts running every registered kind of job, and firing schedules.
///
/// # Errors
/// Why that could not be started.
pub fn start(app: &App, database: &Database, timing: Timing, shutdown: &shutdown::Shutdown) -> Result<Worker, String> {
    let worker = Worker::start(database, timing, registry::registry(app), shutdown).map_err(process::text)?;
    // All end with the drain, at once.
    tokio::spawn(app.clone().catch_up(shutdown.drain.clone()));
    tokio::spawn(app.schedules.clone().run(schedule::Timing::default(), shutdown.drain.clone()));
    tokio::spawn(app.transactions.clone().delete_expired_conflicts(timing.retention));
    Ok(worker)
}
