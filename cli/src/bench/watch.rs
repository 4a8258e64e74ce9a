//! Benchmark of tabs that watch the first page: what they cost on an idle system, and while a worker drains a queue.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use jobs::bench;
use prove::child::Child;
use queue::{Job, NewJob, Queue, enqueue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    BenchContext,
    drain::{self, Backlog},
    noop::Probe,
    report::{Measurement, Target},
};

/// Tabs that watch the first page.
const TABS: usize = 20;
/// The time limit of the first response to a tab.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// Between two probes: rare enough that they cost nothing, frequent enough for a percentile.
const PROBE_EVERY: Duration = Duration::from_millis(20);

/// Open tabs. Dropping them closes them.
struct Tabs(JoinSet<()>);

impl Tabs {
    /// Opens them, and waits until each receives events.
    async fn open(address: SocketAddr, cookie: &str) -> Result<Self> {
        let mut tabs = JoinSet::new();
        for _ in 0..TABS {
            let mut stream = TcpStream::connect(address).await?;
            let request = format!("GET /board/events HTTP/1.1\r\nHost: bench\r\nCookie: {cookie}\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut buffer = vec![0; 1 << 16];
            let length = timeout(OPEN_LIMIT, stream.read(&mut buffer)).await.context("a tab gets no response")??;
            let head = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
            ensure!(head.starts_with("HTTP/1.1 200"), "a tab got {head:?}");
            tabs.spawn(async move { while matches!(stream.read(&mut buffer).await, Ok(1..)) {} });
        }
        Ok(Self(tabs))
    }

    /// Closes them. Fails if the API has ended the events of one.
    fn close(mut self) -> Result<()> {
        ensure!(self.0.try_join_next().is_none(), "the API has closed a tab");
        Ok(())
    }
}

/// Measures the additional CPU time of the API and of PostgreSQL while nothing else happens.
pub(super) async fn measure_idle(
    context: &BenchContext<'_>,
    api: &Child,
    address: SocketAddr,
    cookie: &str,
) -> Result<Vec<Measurement>> {
    // Ten snapshots at least.
    let time = context.time.max(Duration::from_secs(10)) * 2;
    // The times of the API and of PostgreSQL, as shares of a core.
    let used = async || {
        let before = (api.cpu()?, context.environment.server_cpu()?);
        sleep(time).await;
        let share = |after: Duration, before| after.saturating_sub(before).as_secs_f64() / time.as_secs_f64() * 100.0;
        anyhow::Ok((share(api.cpu()?, before.0), share(context.environment.server_cpu()?, before.1)))
    };
    let idle = used().await?;
    let tabs = Tabs::open(address, cookie).await?;
    let watched = used().await?;
    tabs.close()?;
    let line = |program: &str, value: f64| {
        let what = format!("{TABS} tabs that watch the first page, of a core of {program}");
        Measurement::new("operators", what, vec![value], "%").target(Target::AtMost(2.0))
    };
    Ok(vec![line("the API", watched.0 - idle.0), line("PostgreSQL", watched.1 - idle.1)])
}

/// What drains take, in each run.
#[derive(Default)]
struct Drains {
    rates: Vec<f64>,
    /// CPU time of PostgreSQL, in microseconds a job.
    server: Vec<f64>,
    /// Milliseconds from the enqueueing of a probe to its claim.
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Drains {
    /// Drains a queue once. Meanwhile probes wait for the same worker in another queue.
    async fn run(&mut self, context: &BenchContext<'_>, queue: &Queue) -> Result<()> {
        let (bench, environment) = (context.bench(), context.environment);
        let jobs = drain::jobs_of_long_drain(context);
        let backlog = Backlog::of_noops(context, jobs).await?;
        let (since, before) = (bench::now(bench).await?, environment.server_cpu()?);
        let resumed = tokio::select! {
            resumed = backlog.drain() => resumed?,
            failed = send_probes(queue) => return failed,
        };
        let server = environment.server_cpu()?.saturating_sub(before);
        self.server.push(server.as_secs_f64() * 1e6 / jobs as f64);
        self.rates.push(backlog.rate(resumed).await?);
        let are_done = async || Ok(!bench::has_due(bench, Probe::NAME).await?);
        environment.wait_until("every probe is done", are_done).await?;
        let claims = bench::claim_latency(bench, Probe::NAME, since).await?;
        ensure!(claims.claimed > 0, "no probe was claimed during the drain");
        self.p50.push(claims.p50 * 1e3);
        self.p99.push(claims.p99 * 1e3);
        Ok(())
    }
}

/// Enqueues probes until this is dropped or fails.
async fn send_probes(queue: &Queue) -> Result<()> {
    loop {
        let mut tx = queue.begin().await?;
        enqueue(&mut tx, &[NewJob::of(&Probe {})?]).await?;
        tx.commit().await?;
        sleep(PROBE_EVERY).await;
    }
}

/// Compares drains without tabs with drains that many tabs watch.
pub(super) async fn measure_drain(
    context: &BenchContext<'_>,
    address: SocketAddr,
    cookie: &str,
) -> Result<Vec<Measurement>> {
    let mut worker = context.environment.worker_with(&["bench-worker", "--probed"], &[]).await?;
    let queue = context.environment.queue()?;
    let (mut alone, mut watched) = (Drains::default(), Drains::default());
    for _ in 0..context.runs {
        alone.run(context, &queue).await?;
        let tabs = Tabs::open(address, cookie).await?;
        watched.run(context, &queue).await?;
        tabs.close()?;
        context.print_progress(format_args!(
            "{:.0?} jobs/s watched, {:.0?}/s not; claims p99 {:.1?} ms watched, {:.1?} ms not",
            watched.rates, alone.rates, watched.p99, alone.p99
        ));
    }
    worker.stop().await?;
    let line = |what: &str, watched: Vec<f64>, alone: Vec<f64>, unit| {
        let what = format!("{what}, {TABS} tabs watch");
        Measurement::new("operators", what, watched, unit).compared_with("no tab watches", alone)
    };
    Ok(vec![
        line("jobs that do nothing", watched.rates, alone.rates, "/s").target(Target::AtLeast(0.95)),
        line("CPU time of PostgreSQL for such a job", watched.server, alone.server, "µs").target(Target::AtMost(1.05)),
        line("from enqueued to claimed in the drain: p50", watched.p50, alone.p50, "ms").target(Target::AtMost(1.1)),
        line("from enqueued to claimed in the drain: p99", watched.p99, alone.p99, "ms"),
    ])
}
