//! Due jobs, run by one worker process as fast as it can.

use jobs::{
    bench::baseline::{self, Step},
    boot::process::text,
    queue::Job,
    transactions::process::ProcessTransaction,
};

use super::{
    Run, ingest,
    noop::Noop,
    report::{Figure, Line, Target, median},
};

/// Sessions of the bare loop.
const SESSIONS: usize = 2;
/// A claim of the bare loop never waits for one: it ends when nothing is left.
const LONG: std::time::Duration = std::time::Duration::from_secs(600);

/// Has a running worker drain `count` jobs of `queue`, which `add` adds while it is paused; jobs per second, from the
/// moment in which the queue goes on to the last result. Fails unless each was done in one run.
pub async fn drain(
    run: &Run<'_>,
    queue: &str,
    count: i64,
    add: impl AsyncFnOnce() -> Result<(), String>,
) -> Result<f64, String> {
    let (bench, operator) = (&run.stand.bench, &run.stand.app.operator);
    operator.pause(queue, "filling").await.map_err(text)?;
    add().await?;
    bench.settle().await.map_err(text)?;
    let since = bench.now().await.map_err(text)?;
    operator.resume(queue).await.map_err(text)?;
    run.stand.until("the queue is empty", async || bench.has_due(queue).await.map(|due| !due).map_err(text)).await?;
    let seconds = bench.drained(queue, since, count).await.map_err(text)?;
    Ok(count as f64 / seconds)
}

async fn noops(run: &Run<'_>) -> Result<f64, String> {
    drain(run, Noop::NAME, run.jobs, async || run.stand.bench.add_due(Noop::NAME, run.jobs).await.map_err(text)).await
}

async fn bare(run: &Run<'_>) -> Result<f64, String> {
    let bench = &run.stand.bench;
    bench.add_due(Noop::NAME, run.jobs).await.map_err(text)?;
    bench.settle().await.map_err(text)?;
    Ok(baseline::run(bench, Step::Drain(Noop::NAME), SESSIONS, LONG).await.map_err(text)?.rate())
}

/// Jobs that do nothing, beside a loop that only claims and finishes; transactions, beside the rate at which they come.
pub async fn measure(run: &Run<'_>) -> Result<Vec<Line>, String> {
    let bench = &run.stand.bench;
    let clear = async || bench.clear().await.map_err(text);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..run.runs {
        clear().await?;
        theirs.push(bare(run).await?);
        clear().await?;
        let worker = run.stand.worker("bench-worker")?;
        ours.push(noops(run).await?);
        worker.stop()?;
        run.say(format_args!("{ours:.0?} jobs/s, {theirs:.0?}/s by the bare loop"));
    }
    let (mut settled, mut taken) = (Vec::new(), Vec::new());
    for _ in 0..run.runs {
        clear().await?;
        let (api, address) = run.stand.api(3600)?;
        taken.push(ingest::rate(run, address).await?);
        api.stop()?;
        clear().await?;
        let worker = run.stand.worker("worker")?;
        let add = async || run.stand.add_due_transactions(run.jobs).await;
        settled.push(drain(run, ProcessTransaction::NAME, run.jobs, add).await?);
        let processed = bench.lateness(0.0).await.map_err(text)?.settled;
        if processed != run.jobs {
            return Err(format!("of {} transactions {processed} are PROCESSED", run.jobs));
        }
        worker.stop()?;
        run.say(format_args!("{settled:.0?} transactions/s settled, {taken:.0?}/s taken in"));
    }
    Ok(vec![
        Line::beside(
            "drain",
            Figure::new("jobs that do nothing, one worker", median(ours), "/s"),
            Figure::new(format!("claim and finish only, {SESSIONS} sessions"), median(theirs), "/s"),
            Some(Target::AtLeast(0.85)),
        ),
        Line::beside(
            "drain",
            Figure::new("transactions PROCESSED, one worker", median(settled), "/s"),
            Figure::new("durable 202s", median(taken), "/s"),
            Some(Target::AtLeast(0.8)),
        ),
    ])
}

/// The same with many finished and scheduled jobs in the tables as with none.
pub async fn measure_full(run: &Run<'_>) -> Result<Vec<Line>, String> {
    let bench = &run.stand.bench;
    let (mut ingests, mut drains) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let rows = run.jobs * 10;
    for (full, (ingests, drains)) in ingests.iter_mut().zip(&mut drains).enumerate() {
        bench.clear().await.map_err(text)?;
        if full == 1 {
            run.say(format_args!("adding {rows} finished and {rows} scheduled transactions and their jobs"));
            for queue in [ProcessTransaction::NAME, Noop::NAME] {
                bench.add_finished(queue, rows / 2).await.map_err(text)?;
                bench.add_scheduled(queue, rows / 2).await.map_err(text)?;
            }
            bench.settle().await.map_err(text)?;
        }
        let (api, address) = run.stand.api(3600)?;
        let worker = run.stand.worker("bench-worker")?;
        for _ in 0..run.runs {
            ingests.push(ingest::rate(run, address).await?);
            drains.push(noops(run).await?);
            run.say(format_args!("{ingests:.0?} webhooks/s, {drains:.0?} jobs/s"));
        }
        worker.stop()?;
        api.stop()?;
    }
    let rows = format!("{rows} + {rows} other jobs there");
    let line = |what: &str, [empty, full]: [Vec<f64>; 2]| {
        Line::beside(
            "full",
            Figure::new(format!("{what}, {rows}"), median(full), "/s"),
            Figure::new("in empty tables", median(empty), "/s"),
            Some(Target::AtLeast(0.9)),
        )
    };
    Ok(vec![line("durable 202s", ingests), line("jobs that do nothing", drains)])
}
