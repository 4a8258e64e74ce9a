//! Ingest benchmark: webhooks over HTTP, each acknowledged after its commit is on disk.

use std::{net::SocketAddr, time::Duration};

use jobs::{
    bench::baseline::{self, BATCH, Step},
    transactions::process::ProcessTransaction,
};
use queue::Job;
use runtime::process::error_text;
use uuid::Uuid;

use super::{
    BenchContext,
    load::{self, Load, LoadResult, Speed},
    report::{Figure, Measurement, Target, median, percentile},
};

/// Sessions of the batch baseline. On two cores more sessions are not faster.
const BATCH_SESSIONS: usize = 4;
/// Processing delay in seconds: no job is due before the measurement ends.
const LATER: u32 = 3600;

/// Sends webhooks at a given speed. Fails unless the database has a row and a job for each acknowledged webhook.
pub async fn webhooks(
    context: &BenchContext<'_>,
    address: SocketAddr,
    connections: usize,
    speed: Speed,
) -> Result<LoadResult, String> {
    let bench = &context.environment.bench;
    let load = Load {
        address,
        connections,
        speed,
        time: context.time / 5,
        request: load::webhooks(Uuid::now_v7().to_string()),
        expected: 202,
    };
    load.clone().run().await?;
    let since = bench.now().await.map_err(error_text)?;
    let load = Load { time: context.time, request: load::webhooks(Uuid::now_v7().to_string()), ..load };
    let result = load.run().await?;
    let (rows, jobs) = bench.count_recorded(ProcessTransaction::NAME, since).await.map_err(error_text)?;
    match u64::try_from(rows) == Ok(result.count) && u64::try_from(jobs) == Ok(result.count) {
        true => Ok(result),
        false => Err(format!("{} webhooks acknowledged, {rows} rows, {jobs} jobs", result.count)),
    }
}

/// Webhooks per second that the API accepts at full speed.
pub async fn rate(context: &BenchContext<'_>, address: SocketAddr) -> Result<f64, String> {
    Ok(webhooks(context, address, context.connections, Speed::Full).await?.rate())
}

/// Compares throughput with plain inserts, row by row and in batches; measures latencies.
pub async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>, String> {
    let bench = &context.environment.bench;
    let (mut http, mut rows, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=context.runs {
        let insert = async |step, sessions| {
            bench.clear().await.map_err(error_text)?;
            Ok::<_, String>(baseline::run(bench, step, sessions, context.time).await.map_err(error_text)?.rate())
        };
        rows.push(insert(Step::InsertOne, context.connections).await?);
        batches.push(insert(Step::InsertMany, BATCH_SESSIONS).await?);
        bench.clear().await.map_err(error_text)?;
        let (api, address) = context.environment.api(LATER)?;
        http.push(rate(context, address).await?);
        api.stop()?;
        let last = |figures: &[f64]| figures.last().copied().unwrap_or_default();
        context.print_progress(format_args!(
            "run {number}: {:.0} webhooks/s, {:.0} rows/s one by one, {:.0} rows/s in batches",
            last(&http),
            last(&rows),
            last(&batches)
        ));
    }
    let peak = median(http);
    bench.clear().await.map_err(error_text)?;
    let (api, address) = context.environment.api(LATER)?;
    let (mut half, mut single, mut commit) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..context.runs {
        let result = webhooks(context, address, context.connections, Speed::PerSecond(peak / 2.0)).await?;
        half.push(percentile(&result.latencies, 0.99));
        let result = webhooks(context, address, 1, Speed::Full).await?;
        single.push(percentile(&result.latencies, 0.99));
        let mut alone = baseline::run(bench, Step::InsertOne, 1, context.time).await.map_err(error_text)?.latencies;
        alone.sort_unstable();
        commit.push(percentile(&alone, 0.99));
        context.print_progress(format_args!(
            "p99: {half:.2?} ms at half the peak, {single:.2?} ms alone, {commit:.2?} ms a commit"
        ));
    }
    api.stop()?;
    let (single, commit) = (median(single), median(commit));
    let connections = context.connections;
    let webhooks = Figure::new("durable 202s", peak, "/s");
    Ok(vec![
        Measurement::with_baseline(
            "ingest",
            webhooks.clone(),
            Figure::new(format!("one-row transactions, {connections} sessions"), median(rows), "/s"),
            Some(Target::AtLeast(1.5)),
        ),
        Measurement::with_baseline(
            "ingest",
            webhooks,
            Figure::new(format!("{BATCH}-row transactions, {BATCH_SESSIONS} sessions"), median(batches), "/s"),
            None,
        ),
        Measurement::absolute(
            "ingest",
            Figure::new("p99 of 202s at half that rate", median(half), "ms"),
            Some(Target::AtMost(10.0)),
        ),
        Measurement::absolute(
            "ingest",
            Figure::new(format!("p99 of 202s, one connection: above a commit's {commit:.2} ms"), single - commit, "ms"),
            Some(Target::AtMost(2.0)),
        ),
    ])
}

/// Measures bytes of write-ahead log per transaction, from its 202 until it is PROCESSED.
pub async fn measure_log(context: &BenchContext<'_>) -> Result<Vec<Measurement>, String> {
    let bench = &context.environment.bench;
    let (mut bytes, mut images) = (Vec::new(), Vec::new());
    for _ in 0..context.runs {
        bench.clear().await.map_err(error_text)?;
        let (api, address) = context.environment.api(1)?;
        let worker = context.environment.worker("worker")?;
        let (since, before) = (bench.now().await.map_err(error_text)?, bench.wal().await.map_err(error_text)?);
        let load = Load {
            address,
            connections: context.connections,
            speed: Speed::Full,
            time: context.time,
            request: load::webhooks(Uuid::now_v7().to_string()),
            expected: 202,
        };
        let count = load.run().await?.count;
        let settled = i64::try_from(count).map_err(error_text)?;
        context
            .environment
            .wait_until("every transaction is settled", async || {
                Ok(bench.lateness(since).await.map_err(error_text)?.settled == settled && !has_due(context).await?)
            })
            .await?;
        let after = bench.wal().await.map_err(error_text)?;
        bytes.push((after.bytes - before.bytes) as f64 / count as f64 / 1024.0);
        images.push((after.images - before.images) as f64);
        worker.stop()?;
        api.stop()?;
        context.print_progress(format_args!("{count} transactions: {bytes:.2?} KiB each, {images:?} page images"));
    }
    let what = format!("log per transaction, 202 to PROCESSED, with {:.0} page images", median(images));
    Ok(vec![Measurement::absolute("log", Figure::new(what, median(bytes), "KiB"), Some(Target::AtMost(2.0)))])
}

async fn has_due(context: &BenchContext<'_>) -> Result<bool, String> {
    context.environment.bench.has_due(ProcessTransaction::NAME).await.map_err(error_text)
}

/// Compares status look-ups with a route that returns a constant.
pub async fn measure_reads(context: &BenchContext<'_>) -> Result<Vec<Measurement>, String> {
    let (api, address) = context.environment.api(LATER)?;
    let series = Uuid::now_v7().to_string();
    let load = Load {
        address,
        connections: context.connections,
        speed: Speed::Full,
        time: Duration::from_millis(500),
        request: load::webhooks(series.clone()),
        expected: 202,
    };
    let count = load.clone().run().await?.count;
    context.environment.bench.analyze_and_checkpoint().await.map_err(error_text)?;
    let (mut found, mut constant) = (Vec::new(), Vec::new());
    for _ in 0..context.runs {
        let series = series.clone();
        // Steps of a prime number visit all transactions in a scattered order.
        let status = load::get(move |number| format!("/v1/transactions/{series}-{:010}", number * 7919 % count));
        for (request, rates) in [(status, &mut found), (load::get(|_| "/api/v1/health".into()), &mut constant)] {
            rates.push(Load { time: context.time, request, expected: 200, ..load.clone() }.run().await?.rate());
        }
        context.print_progress(format_args!("{found:.0?} status look-ups/s, {constant:.0?} constant responses/s"));
    }
    api.stop()?;
    Ok(vec![Measurement::with_baseline(
        "reads",
        Figure::new("status look-ups", median(found), "/s"),
        Figure::new("a constant JSON route", median(constant), "/s"),
        Some(Target::AtLeast(0.5)),
    )])
}
