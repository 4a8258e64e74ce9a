//! What waiting costs: how late a due job starts, what a waiting one takes, what an idle system does.

use std::time::Duration;

use jobs::{bench::Lateness, boot::process::text, queue::Job, transactions::process::ProcessTransaction};
use uuid::Uuid;

use super::{
    Run,
    load::{self, Load, Speed},
    report::{Figure, Line, Target, median},
};

/// Webhooks a second: a load that leaves the machine at rest nearly always.
const RATE: f64 = 100.0;
/// Seconds until they are due: longer than the workers' own look-ahead.
const DELAY: u32 = 2;
/// After its start, a program is busy with itself for less than this.
const START: Duration = Duration::from_secs(2);

/// How late transactions are settled that come at [`RATE`].
async fn lateness(run: &Run<'_>, address: std::net::SocketAddr) -> Result<Lateness, String> {
    let bench = &run.stand.bench;
    let since = bench.now().await.map_err(text)?;
    let load = Load {
        address,
        connections: 8,
        speed: Speed::PerSecond(RATE),
        time: run.time,
        request: load::webhooks(Uuid::now_v7().to_string()),
        expected: 202,
    };
    let sent = i64::try_from(load.run().await?.count).map_err(text)?;
    tokio::time::sleep(Duration::from_secs(DELAY.into())).await;
    let settled = async || Ok(bench.lateness(since).await.map_err(text)?.settled == sent);
    run.stand.until("every transaction is settled", settled).await?;
    bench.lateness(since).await.map_err(text)
}

/// Punctuality and memory, without and with many that wait.
pub async fn measure(run: &Run<'_>) -> Result<Vec<Line>, String> {
    let bench = &run.stand.bench;
    let (mut p50, mut p99, mut crowded, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for _ in 0..run.runs {
        bench.clear().await.map_err(text)?;
        let worker = run.stand.worker("worker")?;
        tokio::time::sleep(START).await;
        let idle = worker.memory()?;
        bench.add_scheduled(ProcessTransaction::NAME, run.jobs).await.map_err(text)?;
        bench.settle().await.map_err(text)?;
        tokio::time::sleep(START).await;
        memory.push(mebibytes(worker.memory()?) - mebibytes(idle));
        let (api, address) = run.stand.api(DELAY)?;
        crowded.push(lateness(run, address).await?.p99 * 1e3);
        bench.clear().await.map_err(text)?;
        let late = lateness(run, address).await?;
        p50.push(late.p50 * 1e3);
        p99.push(late.p99 * 1e3);
        run.say(format_args!(
            "late: p50 {p50:.1?} ms, p99 {p99:.1?} ms, p99 {crowded:.1?} ms beside {} waiting; {memory:.1?} MiB for these",
            run.jobs
        ));
        worker.stop()?;
        api.stop()?;
    }
    let line = |what: String, figures: Vec<f64>, unit, most| {
        Line::alone("pickup", Figure::new(what, median(figures), unit), Some(Target::AtMost(most)))
    };
    Ok(vec![
        line(format!("due to PROCESSED at {RATE}/s, p50"), p50, "ms", 5.0),
        line(format!("due to PROCESSED at {RATE}/s, p99"), p99, "ms", 25.0),
        line(format!("the same beside {} waiting, p99", run.jobs), crowded, "ms", 250.0),
        line(format!("worker memory for {} waiting", run.jobs), memory, "MiB", 10.0),
    ])
}

/// What one API and one worker take with nothing to do.
pub async fn measure_idle(run: &Run<'_>) -> Result<Vec<Line>, String> {
    let bench = &run.stand.bench;
    bench.clear().await.map_err(text)?;
    let (api, _) = run.stand.api(30)?;
    let worker = run.stand.worker("worker")?;
    // Longer than the workers' attention lasts after the last job; and than the 10 s after which PostgreSQL's sessions at
    // rest report what they have counted, or the start would be among what follows.
    tokio::time::sleep(START * 6).await;
    let used = || Ok::<_, String>(api.cpu()? + worker.cpu()?);
    // Long enough that what sessions have not yet reported does not matter.
    let time = run.time * 4;
    let (cpu, statements) = (used()?, bench.transactions().await.map_err(text)?);
    tokio::time::sleep(time).await;
    let cpu = (used()? - cpu).as_secs_f64() / time.as_secs_f64() * 100.0;
    let statements = (bench.transactions().await.map_err(text)? - statements) as f64 / time.as_secs_f64();
    worker.stop()?;
    api.stop()?;
    let line =
        |what: &str, value, unit, most| Line::alone("idle", Figure::new(what, value, unit), Some(Target::AtMost(most)));
    Ok(vec![
        line("one API and one worker at rest, of a core", cpu, "%", 1.0),
        line("their statements", statements, "/s", 2.0),
    ])
}
