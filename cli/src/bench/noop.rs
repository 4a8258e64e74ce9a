//! Jobs that do nothing, and the worker process that runs them: they measure the overhead of the queue alone.

use anyhow::{Error, Result};
use clap::Args;
use jobs::{app, bench};
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

/// A job without work in a queue of its own: its wait shows how long a claim takes while the worker drains another queue.
#[derive(Serialize, Deserialize)]
pub(crate) struct Probe {}

impl Job for Probe {
    const NAME: &'static str = "bench_probe";
    type Context = ();

    fn policy((): &()) -> Policy {
        Policy::default()
    }

    async fn run(self, (): (), _: Run) -> Result<Outcome, Failure> {
        Ok(Outcome::Done)
    }
}

#[derive(Args)]
pub(crate) struct Arguments {
    /// Count nothing for operators
    #[arg(long)]
    uncounted: bool,
    /// Run probes as well
    #[arg(long)]
    probed: bool,
}

/// Runs a worker like the one in production, with [`Noop`] only, or also with [`Probe`].
///
/// # Errors
/// When the worker does not start, or fails later.
pub(crate) async fn program(arguments: Arguments) -> Result<()> {
    if arguments.uncounted {
        bench::switch_off_counts();
    }
    let (config, database) = app::read_with_database()?;
    let _telemetry = Telemetry::start(&config.telemetry, "bench-worker").map_err(Error::msg)?;
    let shutdown = shutdown::Shutdown::on_signals(shutdown::GRACE)?;
    let registry = Registry::default().job::<Noop>(());
    let registry = if arguments.probed { registry.job::<Probe>(()) } else { registry };
    let worker = Worker::start(&database, config.timing, registry, &shutdown)?;
    Ok(worker.stopped().await?)
}
