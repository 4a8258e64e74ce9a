//! Webhooks over HTTP, each acknowledged when it is on disk.

use std::{net::SocketAddr, time::Duration};

use jobs::{
    bench::baseline::{self, BATCH, Step},
    boot::process::text,
    queue::Job,
    transactions::process::ProcessTransaction,
};
use uuid::Uuid;

use super::{
    Run,
    load::{self, Answers, Load, Speed},
    report::{Figure, Line, Target, median, percentile},
};

/// Sessions that write in batches: more of them make the same two cores no faster.
const BATCH_SESSIONS: usize = 4;
/// Seconds until the jobs are due: after the end of the measurement.
const LATER: u32 = 3600;

/// Webhooks at a speed; fails unless every acknowledged one is there, with its job.
pub async fn webhooks(run: &Run<'_>, address: SocketAddr, connections: usize, speed: Speed) -> Result<Answers, String> {
    let bench = &run.stand.bench;
    let load = Load {
        address,
        connections,
        speed,
        time: run.time / 5,
        request: load::webhooks(Uuid::now_v7().to_string()),
        expected: 202,
    };
    load.clone().run().await?;
    let since = bench.now().await.map_err(text)?;
    let load = Load { time: run.time, request: load::webhooks(Uuid::now_v7().to_string()), ..load };
    let answers = load.run().await?;
    let (rows, jobs) = bench.recorded(ProcessTransaction::NAME, since).await.map_err(text)?;
    match u64::try_from(rows) == Ok(answers.count) && u64::try_from(jobs) == Ok(answers.count) {
        true => Ok(answers),
        false => Err(format!("{} webhooks acknowledged, {rows} rows, {jobs} jobs", answers.count)),
    }
}

/// How many webhooks a second an API takes at full speed.
pub async fn rate(run: &Run<'_>, address: SocketAddr) -> Result<f64, String> {
    Ok(webhooks(run, address, run.connections, Speed::Full).await?.rate())
}

/// Throughput beside what PostgreSQL takes row by row and in batches, and the latencies.
pub async fn measure(run: &Run<'_>) -> Result<Vec<Line>, String> {
    let bench = &run.stand.bench;
    let (mut http, mut rows, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=run.runs {
        let insert = async |step, sessions| {
            bench.clear().await.map_err(text)?;
            Ok::<_, String>(baseline::run(bench, step, sessions, run.time).await.map_err(text)?.rate())
        };
        rows.push(insert(Step::InsertOne, run.connections).await?);
        batches.push(insert(Step::InsertMany, BATCH_SESSIONS).await?);
        bench.clear().await.map_err(text)?;
        let (api, address) = run.stand.api(LATER)?;
        http.push(rate(run, address).await?);
        api.stop()?;
        let last = |figures: &[f64]| figures.last().copied().unwrap_or_default();
        run.say(format_args!(
            "run {number}: {:.0} webhooks/s, {:.0} rows/s one by one, {:.0} rows/s in batches",
            last(&http),
            last(&rows),
            last(&batches)
        ));
    }
    let peak = median(http);
    bench.clear().await.map_err(text)?;
    let (api, address) = run.stand.api(LATER)?;
    let (mut half, mut single, mut commit) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..run.runs {
        let answers = webhooks(run, address, run.connections, Speed::PerSecond(peak / 2.0)).await?;
        half.push(percentile(&answers.latencies, 0.99));
        let answers = webhooks(run, address, 1, Speed::Full).await?;
        single.push(percentile(&answers.latencies, 0.99));
        let mut alone = baseline::run(bench, Step::InsertOne, 1, run.time).await.map_err(text)?.latencies;
        alone.sort_unstable();
        commit.push(percentile(&alone, 0.99));
        run.say(format_args!("p99: {half:.2?} ms at half the peak, {single:.2?} ms alone, {commit:.2?} ms a commit"));
    }
    api.stop()?;
    let (single, commit) = (median(single), median(commit));
    let connections = run.connections;
    let webhooks = Figure::new("durable 202s", peak, "/s");
    Ok(vec![
        Line::beside(
            "ingest",
            webhooks.clone(),
            Figure::new(format!("one-row transactions, {connections} sessions"), median(rows), "/s"),
            Some(Target::AtLeast(1.5)),
        ),
        Line::beside(
            "ingest",
            webhooks,
            Figure::new(format!("{BATCH}-row transactions, {BATCH_SESSIONS} sessions"), median(batches), "/s"),
            None,
        ),
        Line::alone(
            "ingest",
            Figure::new("p99 of 202s at half that rate", median(half), "ms"),
            Some(Target::AtMost(10.0)),
        ),
        Line::alone(
            "ingest",
            Figure::new(format!("p99 of 202s, one connection: above a commit's {commit:.2} ms"), single - commit, "ms"),
            Some(Target::AtMost(2.0)),
        ),
    ])
}

/// Bytes of the write-ahead log for a transaction, from its 202 until it is PROCESSED.
pub async fn measure_log(run: &Run<'_>) -> Result<Vec<Line>, String> {
    let bench = &run.stand.bench;
    let (mut bytes, mut images) = (Vec::new(), Vec::new());
    for _ in 0..run.runs {
        bench.clear().await.map_err(text)?;
        let (api, address) = run.stand.api(1)?;
        let worker = run.stand.worker("worker")?;
        let (since, before) = (bench.now().await.map_err(text)?, bench.wal().await.map_err(text)?);
        let load = Load {
            address,
            connections: run.connections,
            speed: Speed::Full,
            time: run.time,
            request: load::webhooks(Uuid::now_v7().to_string()),
            expected: 202,
        };
        let count = load.run().await?.count;
        let settled = i64::try_from(count).map_err(text)?;
        run.stand
            .until("every transaction is settled", async || {
                Ok(bench.lateness(since).await.map_err(text)?.settled == settled && !has_due(run).await?)
            })
            .await?;
        let after = bench.wal().await.map_err(text)?;
        bytes.push((after.bytes - before.bytes) as f64 / count as f64 / 1024.0);
        images.push((after.images - before.images) as f64);
        worker.stop()?;
        api.stop()?;
        run.say(format_args!("{count} transactions: {bytes:.2?} KiB each, {images:?} page images"));
    }
    let what = format!("log per transaction, 202 to PROCESSED, with {:.0} page images", median(images));
    Ok(vec![Line::alone("log", Figure::new(what, median(bytes), "KiB"), Some(Target::AtMost(2.0)))])
}

async fn has_due(run: &Run<'_>) -> Result<bool, String> {
    run.stand.bench.has_due(ProcessTransaction::NAME).await.map_err(text)
}

/// Status look-ups beside a route that answers a constant.
pub async fn measure_reads(run: &Run<'_>) -> Result<Vec<Line>, String> {
    let (api, address) = run.stand.api(LATER)?;
    let series = Uuid::now_v7().to_string();
    let load = Load {
        address,
        connections: run.connections,
        speed: Speed::Full,
        time: Duration::from_millis(500),
        request: load::webhooks(series.clone()),
        expected: 202,
    };
    let count = load.clone().run().await?.count;
    run.stand.bench.settle().await.map_err(text)?;
    let (mut found, mut constant) = (Vec::new(), Vec::new());
    for _ in 0..run.runs {
        let series = series.clone();
        // Strides of a prime visit all of them in no order.
        let status = load::get(move |number| format!("/v1/transactions/{series}-{:010}", number * 7919 % count));
        for (request, rates) in [(status, &mut found), (load::get(|_| "/api/v1/health".into()), &mut constant)] {
            rates.push(Load { time: run.time, request, expected: 200, ..load.clone() }.run().await?.rate());
        }
        run.say(format_args!("{found:.0?} status look-ups/s, {constant:.0?} constant answers/s"));
    }
    api.stop()?;
    Ok(vec![Line::beside(
        "reads",
        Figure::new("status look-ups", median(found), "/s"),
        Figure::new("a constant JSON route", median(constant), "/s"),
        Some(Target::AtLeast(0.5)),
    )])
}
