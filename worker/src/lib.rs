//! The worker process: runs jobs. Any number of workers may run, on any number of hosts.
//!
//! | file | what |
//! |---|---|
//! | [`registry`] | every kind of job, one line each |
//! | [`config`] | configuration |
//! | [`health`] | `/livez`, `/readyz` and `/metrics` for orchestrators and Prometheus |

pub mod config;
pub mod health;
pub mod registry;

use std::sync::{Arc, OnceLock};

use config::Config;
use jobs::app::App;
use queue::{Timing, Worker, schedule};
use runtime::{db::Database, open_files, process, shutdown, telemetry::Telemetry};

/// Reads the configuration from the environment and runs jobs until a stop signal arrives.
///
/// # Errors
/// When the configuration is wrong, the worker does not start, or it fails later. One problem a line.
pub async fn program() -> Result<(), String> {
    let config = Config::from_env().map_err(process::error_text)?;
    let telemetry = Telemetry::start(&config.jobs.telemetry, "worker")?;
    process::log_configuration(&config.database);
    open_files::raise_limit();
    let shutdown = shutdown::Shutdown::on_signals(shutdown::GRACE).map_err(process::error_text)?;
    let app = App::start(&config.database, &config.jobs, "worker", &shutdown.drain).map_err(process::error_text)?;
    let lease = Arc::new(OnceLock::new());
    // Serve health from the start, also while the worker waits for the database.
    let health = match config.health {
        Some(address) => {
            let readiness = health::Readiness { app: app.clone(), lease: lease.clone(), shutdown: shutdown.clone() };
            Some(health::serve(address, readiness, app.metrics(telemetry.metrics())).await?)
        }
        None => None,
    };
    if !app.await_schema(&shutdown).await.map_err(process::error_text)? {
        return Ok(());
    }
    let worker = start(&app, &config.database, config.jobs.timing, &shutdown)?;
    // The cell is empty, because no other code sets it.
    let _ = lease.set(Box::new(worker.is_ready()) as health::LeaseCheck);
    let result = worker.stopped().await;
    if let Some(health) = health {
        health.abort();
    }
    result.map_err(process::error_text)
}

/// Starts the worker with every registered kind of job, and the scheduler.
///
/// # Errors
/// When the worker cannot be started.
pub fn start(app: &App, database: &Database, timing: Timing, shutdown: &shutdown::Shutdown) -> Result<Worker, String> {
    let worker = Worker::start(database, timing, registry::registry(app), shutdown).map_err(process::error_text)?;
    // The first two tasks stop as soon as the drain begins; the last one ends with the process.
    tokio::spawn(app.clone().catch_up(shutdown.drain.clone()));
    tokio::spawn(app.schedules.clone().run(schedule::Timing::default(), shutdown.drain.clone()));
    tokio::spawn(app.transactions.clone().delete_expired_conflicts(timing.retention));
    Ok(worker)
}
