//! Overload benchmark: twice the webhooks that the database takes, from clients that obey `Retry-After` once.
//!
//! The database is slowed down, so that it is the limit. At the speed of two cores, the clients would be.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jobs::{bench, transactions::process::ProcessTransaction};
use queue::Job;
use runtime::mutex::lock;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    BenchContext,
    http::Connection,
    ingest::{self, LATER},
    load::{self, RESPONSE_TIMEOUT},
    report::{Measurement, Target},
};

const PATH: &str = "/v1/webhooks/transactions";
const JSON: &str = "application/json";
/// How many times its capacity the database is offered.
const FACTOR: f64 = 2.0;
/// The shortest load: long enough that refused webhooks come back while it goes on.
const SHORTEST: Duration = Duration::from_secs(3);

/// Measures the capacity of the slow database, then offers it twice of that.
pub(super) async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let bench = context.bench();
    runtime::open_files::raise_limit();
    let (mut capacities, mut rates, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=context.runs {
        bench::clear(bench).await?;
        bench::limit_inserts(bench).await?;
        let (mut api, address) = context.environment.api(LATER).await?;
        let capacity = ingest::rate(context, address).await?;
        let since = bench::now(bench).await?;
        let offer = Offer { address, rate: FACTOR * capacity, time: context.time.max(SHORTEST) };
        let (seen, elapsed) = offer.run().await?;
        api.stop().await?;
        bench::lift_limit(bench).await?;
        let (rows, jobs) = bench::count_recorded(bench, ProcessTransaction::NAME, since).await?;
        let accepted = i64::try_from(seen.accepted)?;
        ensure!(rows >= accepted && jobs == rows, "{accepted} webhooks acknowledged, {rows} rows, {jobs} jobs");
        context
            .print_progress(format_args!("run {number}: {capacity:.0}/s taken, {:.0}/s offered: {seen:?}", offer.rate));
        capacities.push(capacity);
        rates.push(seen.accepted as f64 / elapsed.as_secs_f64());
        runs.push(seen);
    }
    bench::clear(bench).await?;
    let line = |what: &str, figures, unit| Measurement::new("overload", what, figures, unit);
    let figures = |figure: fn(&Seen) -> f64| -> Vec<f64> { runs.iter().map(figure).collect() };
    let slowest = runs.iter().map(|seen| seen.slowest).max().unwrap_or_default();
    let silent = runs.iter().map(|seen| seen.without_retry_after).sum::<u64>();
    Ok(vec![
        line("durable 202s under twice the load that a slow database takes", rates, "/s")
            .compared_with(format!("at full speed, {} connections", context.connections), capacities),
        line("the slowest 202 of all runs", vec![slowest.as_secs_f64() * 1e3], "ms").target(Target::AtMost(1000.0)),
        line("refused with 503", figures(|seen| seen.refused as f64), "").target(Target::AtLeast(1.0)),
        line("refused without Retry-After, in all runs", vec![silent as f64], "").target(Target::AtMost(0.0)),
        line("accepted when they came back at its time", figures(Seen::accepted_later_percent), "%")
            .target(Target::AtLeast(95.0)),
    ])
}

/// An open loop: requests at fixed times, each on a free connection or on a new one.
#[derive(Clone, Copy)]
struct Offer {
    address: SocketAddr,
    /// Requests per second, without those that come back.
    rate: f64,
    time: Duration,
}

/// What the clients saw.
#[derive(Debug, Default)]
struct Seen {
    accepted: u64,
    /// The longest time of an accepted request, from the moment at which it was due.
    slowest: Duration,
    /// By the first try.
    refused: u64,
    without_retry_after: u64,
    /// Refused ones that came back.
    obeyed: u64,
    accepted_later: u64,
}

impl Seen {
    /// The share of those that came back that was then accepted. It is 100 % if none had to.
    fn accepted_later_percent(&self) -> f64 {
        if self.obeyed == 0 { 100.0 } else { self.accepted_later as f64 / self.obeyed as f64 * 100.0 }
    }

    fn accept(&mut self, response: &Try) {
        self.accepted += 1;
        self.slowest = self.slowest.max(response.time);
    }
}

/// The response to one try.
#[derive(Debug, Clone, Copy)]
struct Try {
    status: u16,
    retry_after: Option<u64>,
    time: Duration,
}

/// Connections without a request.
type Idle = Arc<Mutex<Vec<Connection>>>;

impl Offer {
    /// Sends requests on a separate thread until the last response has arrived, also of those that came back. Returns what was
    /// seen, and the time from the first request to the last response.
    ///
    /// # Errors
    /// When a connection breaks, or a response has another status than 202 and 503.
    async fn run(self) -> Result<(Seen, Duration)> {
        let thread = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(self.send_all())
        });
        thread.await?
    }

    async fn send_all(self) -> Result<(Seen, Duration)> {
        let (series, idle, begun) = (Uuid::now_v7().to_string(), Idle::default(), Instant::now());
        let mut requests = JoinSet::new();
        for number in 0..(self.rate * self.time.as_secs_f64()) as u64 {
            let due = begun + Duration::from_secs_f64(number as f64 / self.rate);
            tokio::time::sleep_until(due.into()).await;
            requests.spawn(send(self.address, idle.clone(), load::webhook(&series, number), due));
        }
        let (mut seen, mut others) = (Seen::default(), BTreeMap::<u16, u64>::new());
        while let Some(tries) = requests.join_next().await {
            let (first, second) = tries??;
            match first.status {
                202 => seen.accept(&first),
                503 => seen.refused += 1,
                other => *others.entry(other).or_default() += 1,
            }
            seen.without_retry_after += u64::from(first.status == 503 && first.retry_after.is_none());
            if let Some(second) = second {
                seen.obeyed += 1;
                match second.status {
                    202 => {
                        seen.accepted_later += 1;
                        seen.accept(&second);
                    }
                    503 => {}
                    other => *others.entry(other).or_default() += 1,
                }
            }
        }
        ensure!(others.is_empty(), "expected 202 and 503, and received {others:?}");
        Ok((seen, begun.elapsed()))
    }
}

/// Sends a webhook, and once more at the time that a refusal names.
async fn send(address: SocketAddr, idle: Idle, body: String, due: Instant) -> Result<(Try, Option<Try>)> {
    let first = post(address, &idle, &body, due).await?;
    let Some(seconds) = first.retry_after.filter(|_| first.status == 503) else { return Ok((first, None)) };
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let second = post(address, &idle, &body, Instant::now()).await?;
    Ok((first, Some(second)))
}

async fn post(address: SocketAddr, idle: &Idle, body: &str, due: Instant) -> Result<Try> {
    let kept = lock(idle).pop();
    let exchange = async {
        if let Some(mut connection) = kept
            && let Ok(response) = connection.post(PATH, JSON, body).await
        {
            return anyhow::Ok((connection, response));
        }
        // The first request, or the server has closed the connection because it was idle.
        let mut connection = Connection::open(address).await?;
        let response = connection.post(PATH, JSON, body).await?;
        Ok((connection, response))
    };
    let (connection, response) =
        tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await.context("a response timed out")??;
    let retry_after = response.header("retry-after").and_then(|seconds| seconds.parse().ok());
    let seen = Try { status: response.status, retry_after, time: due.elapsed() };
    lock(idle).push(connection);
    Ok(seen)
}
