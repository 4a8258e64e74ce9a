//! `millrace bench`: measures every claim about speed on this machine, next to baselines of the database itself.

mod callbacks;
mod cold;
mod counts;
mod drain;
mod environment;
mod http;
mod ingest;
mod items;
mod load;
pub(crate) mod noop;
mod operators;
mod overload;
mod pickup;
mod pinned;
mod prices;
mod receivers;
mod report;
mod watch;

use std::{fmt, net::SocketAddr, time::Duration};

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use jobs::bench::{self, Bench};
use runtime::shutdown::{GRACE, Shutdown};

use self::{
    environment::Environment,
    load::{Load, Speed},
    report::{Measurement, Report},
};
use crate::output::print_value;

#[derive(Args)]
#[command(after_help = "\
Starts a separate PostgreSQL in .millrace/bench, with durable settings, and removes it at the end. DATABASE_URL is not
used. A figure counts only if every acknowledged row and job exists and every job ran exactly once.

Examples:
  cargo run --release -- bench
  millrace bench --only ingest --only drain --seconds 10
  millrace bench --only operators --finished 10000000
  millrace bench --only callbacks --seconds 30
  millrace bench --json > bench.json")]
pub(crate) struct Arguments {
    /// Run only this measurement; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Benchmark>,
    /// Length of each run, from 0.1 to 600; sets the number of jobs and rows too (100,000 jobs at 5 s)
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Number of concurrent HTTP connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=150))]
    clients: u16,
    /// Number of runs; the report shows their median
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    runs: u8,
    /// Finished jobs for the pages of operators, with a tenth of that waiting and a hundredth dead [default: as many as
    /// jobs of a run]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
    finished: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Jobs and rows of a run, for each second of its length.
const JOBS_PER_SECOND: f64 = 20_000.0;

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.1..=600.0).contains(seconds));
    seconds.ok_or_else(|| "must be a number from 0.1 to 600".into())
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// Durable 202s per second, and their latencies
    Ingest,
    /// Durable webhooks per second in batches
    Batches,
    /// Twice the webhooks that the database can take: the slowest 202, and how many refused ones are accepted later
    Overload,
    /// Jobs run and transactions settled per second by one worker
    Drain,
    /// Start delay of due jobs, and memory for waiting jobs
    Pickup,
    /// Start delay while a forgotten transaction holds an old snapshot for five times the length of a run
    Pinned,
    /// Delays of callbacks to 100 receivers, while all respond and while one hangs
    Callbacks,
    /// Rows that a new database reads by scans in its first minute
    Cold,
    /// Ingest and drain in full tables
    Full,
    /// Write-ahead log per transaction
    Log,
    /// Status look-ups per second
    Reads,
    /// Cached reads of items, searches, and indexing rate
    Items,
    /// Cached reads of prices
    Prices,
    /// CPU time and statements of an idle system
    Idle,
    /// Pages of the board and endpoints of operators, on full tables; the cost of tabs that watch, and of counts
    Operators,
}

impl Benchmark {
    async fn run(self, context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
        match self {
            Self::Ingest => ingest::measure(context).await,
            Self::Batches => ingest::measure_batches(context).await,
            Self::Overload => overload::measure(context).await,
            Self::Drain => drain::measure(context).await,
            Self::Pickup => pickup::measure(context).await,
            Self::Pinned => pinned::measure(context).await,
            Self::Callbacks => callbacks::measure(context).await,
            Self::Cold => cold::measure(context).await,
            Self::Full => drain::measure_full(context).await,
            Self::Log => ingest::measure_log(context).await,
            Self::Reads => ingest::measure_reads(context).await,
            Self::Items => items::measure(context).await,
            Self::Prices => prices::measure(context).await,
            Self::Idle => pickup::measure_idle(context).await,
            Self::Operators => operators::measure(context).await,
        }
    }
}

/// The environment and the options of one measurement.
pub(crate) struct BenchContext<'a> {
    environment: &'a Environment,
    measure: Benchmark,
    time: Duration,
    runs: usize,
    connections: usize,
    jobs: i64,
    /// Finished jobs for the pages of operators.
    finished: i64,
}

impl BenchContext<'_> {
    /// The database.
    fn bench(&self) -> &Bench {
        &self.environment.bench
    }

    /// A load at full speed for the time of one run.
    fn load(&self, address: SocketAddr, request: load::Request, expected: u16) -> Load {
        let Self { connections, time, .. } = *self;
        Load { address, connections, speed: Speed::Full, time, request, expected }
    }

    /// Prints progress to standard error.
    fn print_progress(&self, progress: fmt::Arguments<'_>) {
        eprintln!("{:?}: {progress}", self.measure);
    }
}

/// Runs `millrace bench`: measures, then prints the report.
///
/// # Errors
/// When a measurement fails or is interrupted; no report is printed then.
pub(crate) async fn program(arguments: Arguments) -> Result<()> {
    let shutdown = Shutdown::on_signals(GRACE)?;
    let environment = Environment::start().await?;
    let measured = tokio::select! {
        measured = measure(&environment, &arguments) => measured,
        () = shutdown.drain.cancelled() => Err(anyhow!("interrupted")),
    };
    let stopped = environment.stop().await;
    let report = measured?;
    stopped?;
    print_value(arguments.json, &report, || report.text())
}

async fn measure(environment: &Environment, arguments: &Arguments) -> Result<Report> {
    let Arguments { only, seconds, clients, runs, finished, .. } = arguments;
    let measures = match &only[..] {
        [] => Benchmark::value_variants(),
        only => only,
    };
    let mut lines = Vec::new();
    for measure in measures {
        let jobs = (seconds * JOBS_PER_SECOND).round() as i64;
        let context = BenchContext {
            environment,
            measure: *measure,
            time: Duration::from_secs_f64(*seconds),
            runs: (*runs).into(),
            connections: (*clients).into(),
            jobs,
            finished: finished.map_or(jobs, i64::from),
        };
        lines.extend(measure.run(&context).await.map_err(|error| anyhow!("{measure:?}: {error}"))?);
    }
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        date: bench::today(&environment.bench).await?,
        postgresql: bench::version(&environment.bench).await?,
        cores: std::thread::available_parallelism().map_or(1, Into::into),
        optimized: !cfg!(debug_assertions),
        seconds: *seconds,
        runs: (*runs).into(),
        connections: (*clients).into(),
        lines,
    })
}
