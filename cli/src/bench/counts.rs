//! Benchmark of the counts for operators: what they cost the drain of a queue.
//!
//! The same worker drains the same number of jobs with and without counts: without them it adds no number, and its
//! heartbeats write no row of `queue_minutes`.

use std::time::Duration;

use anyhow::{Result, ensure};
use jobs::bench::operators;
use queue::Job;

use super::{
    BenchContext,
    drain::{self, Backlog},
    noop::Noop,
    report::{Measurement, Target},
};

/// What a drain takes, in each run.
#[derive(Default)]
struct Drains {
    rates: Vec<f64>,
    /// CPU time of the worker, in microseconds a job.
    worker: Vec<f64>,
    /// CPU time of PostgreSQL, in microseconds a job.
    server: Vec<f64>,
}

impl Drains {
    /// Drains empty tables, apart from the jobs of this run. Returns how many finished jobs the worker has counted.
    async fn run(&mut self, context: &BenchContext<'_>, worker: &[&str]) -> Result<i64> {
        let (bench, environment) = (context.bench(), context.environment);
        operators::clear(bench).await?;
        let mut worker = environment.worker_with(worker, &[]).await?;
        let jobs = drain::jobs_of_long_drain(context);
        let backlog = Backlog::of_noops(context, jobs).await?;
        let before = (worker.cpu()?, environment.server_cpu()?);
        let resumed = backlog.drain().await?;
        let (in_worker, in_server) = (worker.cpu()? - before.0, environment.server_cpu()?.saturating_sub(before.1));
        self.rates.push(backlog.rate(resumed).await?);
        let per_job = |time: Duration| time.as_secs_f64() * 1e6 / jobs as f64;
        self.worker.push(per_job(in_worker));
        self.server.push(per_job(in_server));
        // Its last heartbeat writes what it has counted since the one before.
        worker.stop().await?;
        Ok(operators::counted(bench, Noop::NAME).await?)
    }
}

/// Compares drains with and without counts.
pub(super) async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let (mut with, mut without) = (Drains::default(), Drains::default());
    for _ in 0..context.runs {
        let counted = without.run(context, &["bench-worker", "--uncounted"]).await?;
        ensure!(counted == 0, "{counted} jobs are counted, although the counts are off");
        let counted = with.run(context, &["bench-worker"]).await?;
        ensure!(counted > 0, "no job is counted");
        context.print_progress(format_args!("counted {:.0?} jobs/s, not counted {:.0?}/s", with.rates, without.rates));
    }
    let line = |what: &str, with: Vec<f64>, without: Vec<f64>, unit| {
        Measurement::new("operators", what, with, unit).compared_with("not counted", without)
    };
    Ok(vec![
        line("jobs that do nothing, counted for operators", with.rates, without.rates, "/s")
            .target(Target::AtLeast(0.97)),
        line("CPU time of the worker for such a job", with.worker, without.worker, "µs").target(Target::AtMost(1.03)),
        line("CPU time of PostgreSQL for such a job", with.server, without.server, "µs").target(Target::AtMost(1.03)),
    ])
}
