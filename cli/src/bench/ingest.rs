//! Ingest benchmark: webhooks over HTTP, each acknowledged after its commit is on disk.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use jobs::{
    bench::{
        self,
        baseline::{self, BATCH, Step, Throughput},
    },
    transactions::process::ProcessTransaction,
};
use queue::Job;
use uuid::Uuid;

use super::{
    BenchContext,
    load::{self, Load, Speed},
    report::{Measurement, Target, median, percentile},
};

/// Sessions of the batch baseline. On two cores more sessions are not faster.
const BATCH_SESSIONS: usize = 4;
/// Webhooks in one request of the batch endpoint: the most that it takes.
const HTTP_BATCH: u64 = 1000;
const HTTP_BATCH_CONNECTIONS: usize = 8;
/// Processing delay in seconds: no job is due before the measurement ends.
pub(super) const LATER: u32 = 3600;

/// Sends webhooks at a given speed. Fails unless the database has a row and a job for each acknowledged webhook.
pub(super) async fn webhooks(
    context: &BenchContext<'_>,
    address: SocketAddr,
    connections: usize,
    speed: Speed,
) -> Result<Throughput> {
    let bench = context.bench();
    let load = |time| {
        let load = context.load(address, load::webhooks(Uuid::now_v7().to_string()), 202);
        Load { connections, speed, time, ..load }.run()
    };
    load(context.time / 5).await?;
    let since = bench::now(bench).await?;
    let result = load(context.time).await?;
    let (rows, jobs) = bench::count_recorded(bench, ProcessTransaction::NAME, since).await?;
    let sent = i64::try_from(result.rows)?;
    ensure!(rows == sent && jobs == sent, "{sent} webhooks acknowledged, {rows} rows, {jobs} jobs");
    Ok(result)
}

/// Webhooks per second that the API accepts at full speed.
pub(super) async fn rate(context: &BenchContext<'_>, address: SocketAddr) -> Result<f64> {
    Ok(webhooks(context, address, context.connections, Speed::Full).await?.rate())
}

/// Compares throughput with plain inserts, row by row and in batches; measures latencies.
pub(super) async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let (bench, connections) = (context.bench(), context.connections);
    let (mut http, mut rows, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=context.runs {
        let insert = async |step, sessions| {
            bench::clear(bench).await?;
            anyhow::Ok(baseline::run(bench, step, sessions, context.time).await?.rate())
        };
        rows.push(insert(Step::InsertOne, connections).await?);
        batches.push(insert(Step::InsertMany, BATCH_SESSIONS).await?);
        bench::clear(bench).await?;
        let (mut api, address) = context.environment.api(LATER).await?;
        http.push(rate(context, address).await?);
        api.stop().await?;
        let last = |figures: &[f64]| figures.last().copied().unwrap_or_default();
        context.print_progress(format_args!(
            "run {number}: {:.0} webhooks/s, {:.0} rows/s one by one, {:.0} rows/s in batches",
            last(&http),
            last(&rows),
            last(&batches)
        ));
    }
    bench::clear(bench).await?;
    let half_peak = Speed::PerSecond(median(http.clone()) / 2.0);
    let (mut api, address) = context.environment.api(LATER).await?;
    let (mut half, mut single, mut commit) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..context.runs {
        let p99 = |result: Throughput| percentile(&result.latencies, 0.99);
        half.push(p99(webhooks(context, address, connections, half_peak).await?));
        single.push(p99(webhooks(context, address, 1, Speed::Full).await?));
        commit.push(p99(baseline::run(bench, Step::InsertOne, 1, context.time).await?));
        context.print_progress(format_args!(
            "p99: {half:.2?} ms at half the peak, {single:.2?} ms alone, {commit:.2?} ms a commit"
        ));
    }
    api.stop().await?;
    let (single, commit) = (median(single), median(commit));
    let durable = || Measurement::new("ingest", "durable 202s", http.clone(), "/s");
    let above_commit = format!("p99 of 202s, one connection: above a commit's {commit:.2} ms");
    Ok(vec![
        durable()
            .compared_with(format!("one-row transactions, {connections} sessions"), rows)
            .target(Target::AtLeast(1.5)),
        durable().compared_with(format!("{BATCH}-row transactions, {BATCH_SESSIONS} sessions"), batches),
        Measurement::new("ingest", "p99 of 202s at half that rate", half, "ms").target(Target::AtMost(10.0)),
        Measurement::new("ingest", above_commit, vec![single - commit], "ms").target(Target::AtMost(2.0)),
    ])
}

/// Measures webhooks in batches over HTTP, next to plain inserts of batches.
pub(super) async fn measure_batches(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let bench = context.bench();
    let (mut http, mut inserts) = (Vec::new(), Vec::new());
    for number in 1..=context.runs {
        bench::clear(bench).await?;
        inserts.push(baseline::run(bench, Step::InsertMany, BATCH_SESSIONS, context.time).await?.rate());
        bench::clear(bench).await?;
        let (mut api, address) = context.environment.api(LATER).await?;
        let load = context.load(address, load::batches(Uuid::now_v7().to_string(), HTTP_BATCH), 200);
        let load = Load { connections: HTTP_BATCH_CONNECTIONS, ..load };
        let since = bench::now(bench).await?;
        let result = load.run().await?;
        api.stop().await?;
        let (rows, jobs) = bench::count_recorded(bench, ProcessTransaction::NAME, since).await?;
        let sent = i64::try_from(result.rows * HTTP_BATCH)?;
        ensure!(rows == sent && jobs == sent, "{sent} webhooks acknowledged, {rows} rows, {jobs} jobs");
        http.push(result.rate() * HTTP_BATCH as f64);
        context.print_progress(format_args!("run {number}: {http:.0?} webhooks/s, {inserts:.0?} rows/s without HTTP"));
    }
    bench::clear(bench).await?;
    let what = format!("durable webhooks in batches of {HTTP_BATCH}, {HTTP_BATCH_CONNECTIONS} connections");
    Ok(vec![
        Measurement::new("batches", what, http, "/s")
            .compared_with(format!("{BATCH}-row transactions, {BATCH_SESSIONS} sessions, without HTTP"), inserts)
            .target(Target::AtLeast(0.43)),
    ])
}

/// Measures bytes of write-ahead log per transaction, from its 202 until it is PROCESSED.
pub(super) async fn measure_log(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let bench = context.bench();
    let (mut bytes, mut images) = (Vec::new(), Vec::new());
    for _ in 0..context.runs {
        bench::clear(bench).await?;
        let (mut api, address) = context.environment.api(1).await?;
        let mut worker = context.environment.worker("worker").await?;
        let (since, before) = (bench::now(bench).await?, bench::wal(bench).await?);
        let count = context.load(address, load::webhooks(Uuid::now_v7().to_string()), 202).run().await?.rows;
        let sent = i64::try_from(count)?;
        context
            .environment
            .wait_until("every transaction is settled", async || {
                let settled = bench::lateness(bench, since).await?.settled;
                Ok(settled == sent && !bench::has_due(bench, ProcessTransaction::NAME).await?)
            })
            .await?;
        let after = bench::wal(bench).await?;
        bytes.push((after.bytes - before.bytes) as f64 / count as f64 / 1024.0);
        images.push((after.images - before.images) as f64);
        worker.stop().await?;
        api.stop().await?;
        context.print_progress(format_args!("{count} transactions: {bytes:.2?} KiB each, {images:?} page images"));
    }
    let what = format!("log per transaction, 202 to PROCESSED, with {:.0} page images", median(images));
    Ok(vec![Measurement::new("log", what, bytes, "KiB").target(Target::AtMost(2.0))])
}

/// Compares status look-ups with a route that returns a constant.
pub(super) async fn measure_reads(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let (mut api, address) = context.environment.api(LATER).await?;
    let series = Uuid::now_v7().to_string();
    let webhooks = context.load(address, load::webhooks(series.clone()), 202);
    let count = Load { time: Duration::from_millis(500), ..webhooks }.run().await?.rows;
    bench::analyze_and_checkpoint(context.bench()).await?;
    // Steps of a prime number visit all transactions in a scattered order.
    let status = load::get(move |number| format!("/v1/transactions/{series}-{:010}", number * 7919 % count));
    let load = context.load(address, status, 200);
    let (mut found, mut constant) = (Vec::new(), Vec::new());
    for _ in 0..context.runs {
        found.push(load.clone().run().await?.rate());
        constant.push(load.of_constant_route().run().await?.rate());
        context.print_progress(format_args!("{found:.0?} status look-ups/s, {constant:.0?} constant responses/s"));
    }
    api.stop().await?;
    Ok(vec![
        Measurement::new("reads", "status look-ups", found, "/s")
            .compared_with("a constant JSON route", constant)
            .target(Target::AtLeast(0.5)),
    ])
}
