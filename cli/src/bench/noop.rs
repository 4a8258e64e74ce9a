//! A job that does nothing, and the worker process that runs it: they measure the overhead of the queue alone.

use anyhow::{Error, Result};
use jobs::app;
use queue::{Failure, Job, Outcome, Policy, Registry, Run, Worker};
use runtime::{shutdown, telemetry::Telemetry};
use serde::{Deserialize, Serialize};

/// A job without work.
#[derive(Serialize, Deserialize)]
pub(crate) struct Noop {}

impl Job for Noop {
    const NAME: &'static str = "bench_noop";
    type Context = ();

    fn policy((): &()) -> Policy {
        // The same as the simulated processing of transactions.
        Policy { concurrency: 2000, ..Policy::default() }
    }

    async fn run(self, (): (), _: Run) -> Result<Outcome, Failure> {
        Ok(Outcome::Done)
    }
}

/// Runs a worker like the one in production, with this job only.
///
/// # Errors
/// When the worker does not start, or fails later.
pub(crate) async fn program() -> Result<()> {
    let (config, database) = app::read_with_database()?;
    let _telemetry = Telemetry::start(&config.telemetry, "bench-worker").map_err(Error::msg)?;
    let shutdown = shutdown::Shutdown::on_signals(shutdown::GRACE)?;
    let registry = Registry::default().job::<Noop>(());
    let worker = Worker::start(&database, config.timing, registry, &shutdown)?;
    Ok(worker.stopped().await?)
}
