//! Drain benchmark: how fast one worker process runs due jobs.

use std::time::Duration;

use anyhow::{Error, Result, ensure};
use jobs::{
    bench::{
        self,
        baseline::{self, Step},
    },
    transactions::process::ProcessTransaction,
};
use queue::{
    Job,
    operator::{
        audit::{Order, Via},
        pauses::Pausing,
    },
};

use super::{
    BenchContext, ingest,
    noop::Noop,
    report::{Measurement, Target},
};

/// Sessions of the baseline, which only claims and finishes jobs.
const SESSIONS: usize = 2;
/// The length of a long drain, in those of a short one: about ten seconds, in which workers send two heartbeats.
const LONG: i64 = 5;
/// The most jobs of a long drain.
const MOST_JOBS: i64 = 2_000_000;
/// Time limit of the baseline. It ends earlier, as soon as no due job is left.
const BASELINE_TIMEOUT: Duration = Duration::from_secs(600);

/// Due jobs in a paused queue, which a running worker can drain.
pub(super) struct Backlog<'a> {
    context: &'a BenchContext<'a>,
    queue: &'a str,
    count: i64,
    order: Order,
    /// When the queue was paused, before the jobs were added.
    paused: f64,
}

impl<'a> Backlog<'a> {
    /// Pauses `queue`, and adds `count` jobs with `add`.
    ///
    /// # Errors
    /// When a job cannot be added.
    pub(super) async fn add(
        context: &'a BenchContext<'a>,
        queue: &'a str,
        count: i64,
        add: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<Self> {
        let (bench, operator) = (context.bench(), &context.environment.app.operator);
        let order = Order::new("bench", Via::Cli, "the benchmark adds jobs").map_err(Error::msg)?;
        // A queue is known from the first heartbeat of its worker on.
        let pause = async || Ok(operator.pause(queue, None, &order).await? == Pausing::Paused);
        context.environment.wait_until("the queue is paused", pause).await?;
        // Earlier runs have claimed all their jobs by now. A claim that begins just before the resume may see it, so the
        // jobs of this run are not those that were claimed after the resume.
        let paused = bench::now(bench).await?;
        add().await?;
        bench::analyze_and_checkpoint(bench).await?;
        Ok(Self { context, queue, count, order, paused })
    }

    /// Adds this many [`Noop`] jobs.
    ///
    /// # Errors
    /// When a job cannot be added.
    pub(super) async fn of_noops(context: &'a BenchContext<'a>, count: i64) -> Result<Self> {
        let add = async || Ok(bench::add_due(context.bench(), Noop::NAME, count).await?);
        Self::add(context, Noop::NAME, count, add).await
    }

    /// Resumes the queue, and waits until a worker has drained it. Returns the time of the resume.
    ///
    /// # Errors
    /// When the queue is not drained within ten minutes.
    pub(super) async fn drain(&self) -> Result<f64> {
        let Self { context, queue, order, .. } = self;
        let resumed = bench::now(context.bench()).await?;
        context.environment.app.operator.resume(queue, order).await?;
        let is_empty = async || Ok(!bench::has_due(context.bench(), queue).await?);
        context.environment.wait_until("the queue is empty", is_empty).await?;
        Ok(resumed)
    }

    /// The jobs per second from the resume to the last result.
    ///
    /// # Errors
    /// Unless every job is done after exactly one run.
    pub(super) async fn rate(&self, resumed: f64) -> Result<f64> {
        let Self { context, queue, count, paused, .. } = self;
        let seconds = bench::drain_seconds(context.bench(), queue, *paused, *count).await? - (resumed - paused);
        Ok(*count as f64 / seconds)
    }
}

/// How many jobs a drain has that is long enough for what happens every few seconds.
pub(super) fn jobs_of_long_drain(context: &BenchContext<'_>) -> i64 {
    (context.jobs * LONG).min(MOST_JOBS)
}

/// Adds `count` jobs to a paused queue with `add`, and lets a running worker drain it. Returns the jobs per second.
pub(super) async fn drain(
    context: &BenchContext<'_>,
    queue: &str,
    count: i64,
    add: impl AsyncFnOnce() -> Result<()>,
) -> Result<f64> {
    let backlog = Backlog::add(context, queue, count, add).await?;
    let resumed = backlog.drain().await?;
    backlog.rate(resumed).await
}

async fn drain_noops(context: &BenchContext<'_>) -> Result<f64> {
    let backlog = Backlog::of_noops(context, context.jobs).await?;
    let resumed = backlog.drain().await?;
    backlog.rate(resumed).await
}

async fn drain_baseline(context: &BenchContext<'_>) -> Result<f64> {
    let bench = context.bench();
    bench::add_due(bench, Noop::NAME, context.jobs).await?;
    bench::analyze_and_checkpoint(bench).await?;
    Ok(baseline::run(bench, Step::Drain(Noop::NAME), SESSIONS, BASELINE_TIMEOUT).await?.rate())
}

/// Compares no-op jobs with a loop that only claims and finishes, and transactions with the rate of durable 202s.
pub(super) async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let bench = context.bench();
    let (mut drained, mut baselines) = (Vec::new(), Vec::new());
    for _ in 0..context.runs {
        bench::clear(bench).await?;
        baselines.push(drain_baseline(context).await?);
        bench::clear(bench).await?;
        let mut worker = context.environment.worker("bench-worker").await?;
        drained.push(drain_noops(context).await?);
        worker.stop().await?;
        context.print_progress(format_args!("{drained:.0?} jobs/s, baseline {baselines:.0?}/s"));
    }
    let (mut settled, mut accepted) = (Vec::new(), Vec::new());
    for _ in 0..context.runs {
        bench::clear(bench).await?;
        let (mut api, address) = context.environment.api(3600).await?;
        accepted.push(ingest::rate(context, address).await?);
        api.stop().await?;
        bench::clear(bench).await?;
        let mut worker = context.environment.worker("worker").await?;
        let add = async || context.environment.add_due_transactions(context.jobs).await;
        settled.push(drain(context, ProcessTransaction::NAME, context.jobs, add).await?);
        let processed = bench::lateness(bench, 0.0).await?.settled;
        ensure!(processed == context.jobs, "of {} transactions {processed} are PROCESSED", context.jobs);
        worker.stop().await?;
        context.print_progress(format_args!("{settled:.0?} transactions/s settled, {accepted:.0?}/s accepted"));
    }
    Ok(vec![
        Measurement::new("drain", "jobs that do nothing, one worker", drained, "/s")
            .compared_with(format!("claim and finish only, {SESSIONS} sessions"), baselines)
            .target(Target::AtLeast(0.85)),
        Measurement::new("drain", "transactions PROCESSED, one worker", settled, "/s")
            .compared_with("durable 202s", accepted)
            .target(Target::AtLeast(0.8)),
    ])
}

/// Compares ingest and drain in tables full of finished and scheduled jobs with the same in empty tables.
pub(super) async fn measure_full(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let bench = context.bench();
    let (mut ingests, mut drains) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let rows = context.jobs * 10;
    for (full, (ingests, drains)) in ingests.iter_mut().zip(&mut drains).enumerate() {
        bench::clear(bench).await?;
        if full == 1 {
            context.print_progress(format_args!(
                "adding {rows} finished and {rows} scheduled transactions and their jobs"
            ));
            for queue in [ProcessTransaction::NAME, Noop::NAME] {
                bench::add_finished(bench, queue, rows / 2).await?;
                bench::add_scheduled(bench, queue, rows / 2).await?;
            }
            bench::analyze_and_checkpoint(bench).await?;
        }
        let (mut api, address) = context.environment.api(3600).await?;
        let mut worker = context.environment.worker("bench-worker").await?;
        for _ in 0..context.runs {
            ingests.push(ingest::rate(context, address).await?);
            drains.push(drain_noops(context).await?);
            context.print_progress(format_args!("{ingests:.0?} webhooks/s, {drains:.0?} jobs/s"));
        }
        worker.stop().await?;
        api.stop().await?;
    }
    let line = |what: &str, [empty, full]: [Vec<f64>; 2]| {
        Measurement::new("full", format!("{what}, with {rows} + {rows} other jobs"), full, "/s")
            .compared_with("in empty tables", empty)
            .target(Target::AtLeast(0.9))
    };
    Ok(vec![line("durable 202s", ingests), line("jobs that do nothing", drains)])
}
