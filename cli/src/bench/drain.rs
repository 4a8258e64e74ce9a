//! Drain benchmark: how fast one worker process runs due jobs.

use jobs::{
    bench::baseline::{self, Step},
    transactions::process::ProcessTransaction,
};
use queue::Job;
use runtime::process::error_text;

use super::{
    BenchContext, ingest,
    noop::Noop,
    report::{Figure, Measurement, Target, median},
};

/// Sessions of the baseline, which only claims and finishes jobs.
const SESSIONS: usize = 2;
/// Time limit of the baseline. It ends earlier, as soon as no due job is left.
const BASELINE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(600);

/// Pauses `queue`, adds `count` jobs with `add`, resumes it, and waits until a running worker has drained it. Returns
/// jobs per second from the resume to the last result. Fails unless every job is done after exactly one run.
pub async fn drain(
    context: &BenchContext<'_>,
    queue: &str,
    count: i64,
    add: impl AsyncFnOnce() -> Result<(), String>,
) -> Result<f64, String> {
    let (bench, operator) = (&context.environment.bench, &context.environment.app.operator);
    operator.pause(queue, "the benchmark adds jobs").await.map_err(error_text)?;
    add().await?;
    bench.analyze_and_checkpoint().await.map_err(error_text)?;
    let since = bench.now().await.map_err(error_text)?;
    operator.resume(queue).await.map_err(error_text)?;
    context
        .environment
        .wait_until("the queue is empty", async || bench.has_due(queue).await.map(|due| !due).map_err(error_text))
        .await?;
    let seconds = bench.drain_seconds(queue, since, count).await.map_err(error_text)?;
    Ok(count as f64 / seconds)
}

async fn drain_noops(context: &BenchContext<'_>) -> Result<f64, String> {
    drain(context, Noop::NAME, context.jobs, async || {
        context.environment.bench.add_due(Noop::NAME, context.jobs).await.map_err(error_text)
    })
    .await
}

async fn drain_baseline(context: &BenchContext<'_>) -> Result<f64, String> {
    let bench = &context.environment.bench;
    bench.add_due(Noop::NAME, context.jobs).await.map_err(error_text)?;
    bench.analyze_and_checkpoint().await.map_err(error_text)?;
    Ok(baseline::run(bench, Step::Drain(Noop::NAME), SESSIONS, BASELINE_TIMEOUT).await.map_err(error_text)?.rate())
}

/// Compares no-op jobs with a loop that only claims and finishes, and transactions with the rate of durable 202s.
pub async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>, String> {
    let bench = &context.environment.bench;
    let clear = async || bench.clear().await.map_err(error_text);
    let (mut drained, mut baselines) = (Vec::new(), Vec::new());
    for _ in 0..context.runs {
        clear().await?;
        baselines.push(drain_baseline(context).await?);
        clear().await?;
        let worker = context.environment.worker("bench-worker")?;
        drained.push(drain_noops(context).await?);
        worker.stop()?;
        context.print_progress(format_args!("{drained:.0?} jobs/s, baseline {baselines:.0?}/s"));
    }
    let (mut settled, mut accepted) = (Vec::new(), Vec::new());
    for _ in 0..context.runs {
        clear().await?;
        let (api, address) = context.environment.api(3600)?;
        accepted.push(ingest::rate(context, address).await?);
        api.stop()?;
        clear().await?;
        let worker = context.environment.worker("worker")?;
        let add = async || context.environment.add_due_transactions(context.jobs).await;
        settled.push(drain(context, ProcessTransaction::NAME, context.jobs, add).await?);
        let processed = bench.lateness(0.0).await.map_err(error_text)?.settled;
        if processed != context.jobs {
            return Err(format!("of {} transactions {processed} are PROCESSED", context.jobs));
        }
        worker.stop()?;
        context.print_progress(format_args!("{settled:.0?} transactions/s settled, {accepted:.0?}/s accepted"));
    }
    Ok(vec![
        Measurement::with_baseline(
            "drain",
            Figure::new("jobs that do nothing, one worker", median(drained), "/s"),
            Figure::new(format!("claim and finish only, {SESSIONS} sessions"), median(baselines), "/s"),
            Some(Target::AtLeast(0.85)),
        ),
        Measurement::with_baseline(
            "drain",
            Figure::new("transactions PROCESSED, one worker", median(settled), "/s"),
            Figure::new("durable 202s", median(accepted), "/s"),
            Some(Target::AtLeast(0.8)),
        ),
    ])
}

/// Compares ingest and drain in tables full of finished and scheduled jobs with the same in empty tables.
pub async fn measure_full(context: &BenchContext<'_>) -> Result<Vec<Measurement>, String> {
    let bench = &context.environment.bench;
    let (mut ingests, mut drains) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let rows = context.jobs * 10;
    for (full, (ingests, drains)) in ingests.iter_mut().zip(&mut drains).enumerate() {
        bench.clear().await.map_err(error_text)?;
        if full == 1 {
            context.print_progress(format_args!(
                "adding {rows} finished and {rows} scheduled transactions and their jobs"
            ));
            for queue in [ProcessTransaction::NAME, Noop::NAME] {
                bench.add_finished(queue, rows / 2).await.map_err(error_text)?;
                bench.add_scheduled(queue, rows / 2).await.map_err(error_text)?;
            }
            bench.analyze_and_checkpoint().await.map_err(error_text)?;
        }
        let (api, address) = context.environment.api(3600)?;
        let worker = context.environment.worker("bench-worker")?;
        for _ in 0..context.runs {
            ingests.push(ingest::rate(context, address).await?);
            drains.push(drain_noops(context).await?);
            context.print_progress(format_args!("{ingests:.0?} webhooks/s, {drains:.0?} jobs/s"));
        }
        worker.stop()?;
        api.stop()?;
    }
    let rows = format!("with {rows} + {rows} other jobs");
    let line = |what: &str, [empty, full]: [Vec<f64>; 2]| {
        Measurement::with_baseline(
            "full",
            Figure::new(format!("{what}, {rows}"), median(full), "/s"),
            Figure::new("in empty tables", median(empty), "/s"),
            Some(Target::AtLeast(0.9)),
        )
    };
    Ok(vec![line("durable 202s", ingests), line("jobs that do nothing", drains)])
}
