//! Pickup and idle benchmarks: the start delay of due jobs, memory for waiting jobs, and the load of an idle system.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use jobs::{
    bench::{self, Lateness},
    transactions::process::ProcessTransaction,
};
use queue::Job;
use uuid::Uuid;

use super::{
    BenchContext,
    load::{self, Load, Speed},
    report::{Measurement, Target},
};

/// Webhooks per second: a load that leaves the machine almost idle.
const RATE: f64 = 100.0;
/// Seconds until they are due: longer than the workers' look-ahead.
const DELAY: u32 = 2;
/// A process finishes its start-up work in less than this.
const START: Duration = Duration::from_secs(2);

/// Sends transactions at this rate, each due after `delay`, and measures how late they are settled.
pub(super) async fn lateness(
    context: &BenchContext<'_>,
    address: SocketAddr,
    rate: f64,
    delay: Duration,
) -> Result<Lateness> {
    let bench = context.bench();
    let since = bench::now(bench).await?;
    let load = context.load(address, load::webhooks(Uuid::now_v7().to_string()), 202);
    let load = Load { connections: 8, speed: Speed::PerSecond(rate), ..load };
    let sent = i64::try_from(load.run().await?.rows)?;
    tokio::time::sleep(delay).await;
    let settled = async || Ok(bench::lateness(bench, since).await?.settled == sent);
    context.environment.wait_until("every transaction is settled", settled).await?;
    Ok(bench::lateness(bench, since).await?)
}

/// Measures start delay and memory, with few and with many waiting jobs.
pub(super) async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let bench = context.bench();
    let (mut p50, mut p99, mut crowded, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for _ in 0..context.runs {
        bench::clear(bench).await?;
        let mut worker = context.environment.worker("worker").await?;
        tokio::time::sleep(START).await;
        let idle = worker.memory()?;
        bench::add_scheduled(bench, ProcessTransaction::NAME, context.jobs).await?;
        bench::analyze_and_checkpoint(bench).await?;
        tokio::time::sleep(START).await;
        memory.push(mebibytes(worker.memory()?) - mebibytes(idle));
        let (mut api, address) = context.environment.api(DELAY).await?;
        crowded.push(lateness(context, address, RATE, Duration::from_secs(DELAY.into())).await?.p99 * 1e3);
        bench::clear(bench).await?;
        let late = lateness(context, address, RATE, Duration::from_secs(DELAY.into())).await?;
        p50.push(late.p50 * 1e3);
        p99.push(late.p99 * 1e3);
        context.print_progress(format_args!(
            "delay: p50 {p50:.1?} ms, p99 {p99:.1?} ms; with {} waiting jobs p99 {crowded:.1?} ms and {memory:.1?} MiB",
            context.jobs
        ));
        worker.stop().await?;
        api.stop().await?;
    }
    let line = |what: String, figures: Vec<f64>, unit, most| {
        Measurement::new("pickup", what, figures, unit).target(Target::AtMost(most))
    };
    Ok(vec![
        line(format!("due to PROCESSED at {RATE}/s, p50"), p50, "ms", 1.5),
        line(format!("due to PROCESSED at {RATE}/s, p99"), p99, "ms", 4.0),
        line(format!("the same with {} waiting, p99", context.jobs), crowded, "ms", 250.0),
        line(format!("worker memory for {} waiting", context.jobs), memory, "MiB", 10.0),
    ])
}

/// Measures CPU time and statements of one idle API and one idle worker.
pub(super) async fn measure_idle(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let bench = context.bench();
    bench::clear(bench).await?;
    let (mut api, _) = context.environment.api(30).await?;
    let mut worker = context.environment.worker("worker").await?;
    // Longer than a worker polls quickly after its last job. Also longer than 10 s: an idle PostgreSQL session reports
    // its statistics after that time, and statements of the start must not count.
    tokio::time::sleep(START * 6).await;
    let used = || anyhow::Ok(api.cpu()? + worker.cpu()?);
    // Long enough that statistics which sessions have not reported yet are negligible.
    let time = context.time * 4;
    let (cpu, statements) = (used()?, bench::transactions(bench).await?);
    tokio::time::sleep(time).await;
    let cpu = (used()? - cpu).as_secs_f64() / time.as_secs_f64() * 100.0;
    let statements = (bench::transactions(bench).await? - statements) as f64 / time.as_secs_f64();
    worker.stop().await?;
    api.stop().await?;
    let line =
        |what: &str, value, unit, most| Measurement::new("idle", what, vec![value], unit).target(Target::AtMost(most));
    Ok(vec![
        line("one idle API and one idle worker, of a core", cpu, "%", 1.0),
        line("their statements", statements, "/s", 2.0),
    ])
}
