//! Pickup and idle benchmarks: the start delay of due jobs, memory for waiting jobs, and the load of an idle system.

use std::time::Duration;

use jobs::{bench::Lateness, transactions::process::ProcessTransaction};
use queue::Job;
use runtime::process::error_text;
use uuid::Uuid;

use super::{
    BenchContext,
    load::{self, Load, Speed},
    report::{Figure, Measurement, Target, median},
};

/// Webhooks per second: a load that leaves the machine almost idle.
const RATE: f64 = 100.0;
/// Seconds until they are due: longer than the workers' look-ahead.
const DELAY: u32 = 2;
/// A process finishes its start-up work in less than this.
const START: Duration = Duration::from_secs(2);

/// Sends transactions at [`RATE`] and measures how late they are settled.
async fn lateness(context: &BenchContext<'_>, address: std::net::SocketAddr) -> Result<Lateness, String> {
    let bench = &context.environment.bench;
    let since = bench.now().await.map_err(error_text)?;
    let load = Load {
        address,
        connections: 8,
        speed: Speed::PerSecond(RATE),
        time: context.time,
        request: load::webhooks(Uuid::now_v7().to_string()),
        expected: 202,
    };
    let sent = i64::try_from(load.run().await?.count).map_err(error_text)?;
    tokio::time::sleep(Duration::from_secs(DELAY.into())).await;
    let settled = async || Ok(bench.lateness(since).await.map_err(error_text)?.settled == sent);
    context.environment.wait_until("every transaction is settled", settled).await?;
    bench.lateness(since).await.map_err(error_text)
}

/// Measures start delay and memory, with few and with many waiting jobs.
pub async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>, String> {
    let bench = &context.environment.bench;
    let (mut p50, mut p99, mut crowded, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for _ in 0..context.runs {
        bench.clear().await.map_err(error_text)?;
        let worker = context.environment.worker("worker")?;
        tokio::time::sleep(START).await;
        let idle = worker.memory()?;
        bench.add_scheduled(ProcessTransaction::NAME, context.jobs).await.map_err(error_text)?;
        bench.analyze_and_checkpoint().await.map_err(error_text)?;
        tokio::time::sleep(START).await;
        memory.push(mebibytes(worker.memory()?) - mebibytes(idle));
        let (api, address) = context.environment.api(DELAY)?;
        crowded.push(lateness(context, address).await?.p99 * 1e3);
        bench.clear().await.map_err(error_text)?;
        let late = lateness(context, address).await?;
        p50.push(late.p50 * 1e3);
        p99.push(late.p99 * 1e3);
        context.print_progress(format_args!(
            "delay: p50 {p50:.1?} ms, p99 {p99:.1?} ms; with {} waiting jobs p99 {crowded:.1?} ms and {memory:.1?} MiB",
            context.jobs
        ));
        worker.stop()?;
        api.stop()?;
    }
    let line = |what: String, figures: Vec<f64>, unit, most| {
        Measurement::absolute("pickup", Figure::new(what, median(figures), unit), Some(Target::AtMost(most)))
    };
    Ok(vec![
        line(format!("due to PROCESSED at {RATE}/s, p50"), p50, "ms", 5.0),
        line(format!("due to PROCESSED at {RATE}/s, p99"), p99, "ms", 25.0),
        line(format!("the same with {} waiting, p99", context.jobs), crowded, "ms", 250.0),
        line(format!("worker memory for {} waiting", context.jobs), memory, "MiB", 10.0),
    ])
}

/// Measures CPU time and statements of one idle API and one idle worker.
pub async fn measure_idle(context: &BenchContext<'_>) -> Result<Vec<Measurement>, String> {
    let bench = &context.environment.bench;
    bench.clear().await.map_err(error_text)?;
    let (api, _) = context.environment.api(30)?;
    let worker = context.environment.worker("worker")?;
    // Longer than a worker polls quickly after its last job. Also longer than 10 s: an idle PostgreSQL session reports
    // its statistics after that time, and statements of the start must not count.
    tokio::time::sleep(START * 6).await;
    let used = || Ok::<_, String>(api.cpu()? + worker.cpu()?);
    // Long enough that statistics which sessions have not reported yet are negligible.
    let time = context.time * 4;
    let (cpu, statements) = (used()?, bench.transactions().await.map_err(error_text)?);
    tokio::time::sleep(time).await;
    let cpu = (used()? - cpu).as_secs_f64() / time.as_secs_f64() * 100.0;
    let statements = (bench.transactions().await.map_err(error_text)? - statements) as f64 / time.as_secs_f64();
    worker.stop()?;
    api.stop()?;
    let line = |what: &str, value, unit, most| {
        Measurement::absolute("idle", Figure::new(what, value, unit), Some(Target::AtMost(most)))
    };
    Ok(vec![
        line("one idle API and one idle worker, of a core", cpu, "%", 1.0),
        line("their statements", statements, "/s", 2.0),
    ])
}
