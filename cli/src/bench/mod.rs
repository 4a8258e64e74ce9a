//! `millrace bench`: every claim about speed, measured on this machine beside what the database itself can do.
//!
//! | file | what |
//! |---|---|
//! | [`stand`] | PostgreSQL of its own, and the real programs on it |
//! | [`child`] | a program as a process |
//! | [`load`] | HTTP requests, as fast or as often as wanted |
//! | [`report`] | the table, and the JSON |
//! | [`ingest`], [`drain`], [`waiting`], [`items`], [`prices`] | the measures |
//! | [`noop`] | a job that does nothing |

mod child;
mod drain;
mod ingest;
mod items;
mod load;
pub mod noop;
mod prices;
mod report;
mod stand;
mod waiting;

use std::{fmt, time::Duration};

use clap::{Args, ValueEnum};
use jobs::boot::{
    process,
    shutdown::{GRACE, Shutdown},
};

use self::{
    report::{Line, Report},
    stand::Stand,
};
use crate::operator::{print, print_json};

#[derive(Args)]
#[command(after_help = "\
It starts a PostgreSQL of its own in .millrace/bench, with everything durable, and removes it at the end; DATABASE_URL is
not touched. A figure counts only if every acknowledged row and job is there and every job ran once.

Examples:
  cargo run --release -- bench
  millrace bench --only ingest --only drain --seconds 10
  millrace bench --json > bench.json")]
pub struct Arguments {
    /// Measure only this; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Measure>,
    /// Length of each run; the number of jobs and rows grows with it (100,000 jobs at 5 s)
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Connections that send at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=150))]
    clients: u16,
    /// Runs of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    runs: u8,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// Durable 202s a second, and their latencies
    Ingest,
    /// Jobs a second that one worker runs, and transactions that it settles
    Drain,
    /// How late due jobs start, and what waiting ones cost
    Pickup,
    /// Ingest and drain in full tables
    Full,
    /// Write-ahead log per transaction
    Log,
    /// Status look-ups a second
    Reads,
    /// Cached reads, searches, and how fast the index follows
    Items,
    /// Cached reads of prices
    Prices,
    /// What an idle system takes
    Idle,
}

impl Measure {
    async fn run(self, run: &Run<'_>) -> Result<Vec<Line>, String> {
        match self {
            Self::Ingest => ingest::measure(run).await,
            Self::Drain => drain::measure(run).await,
            Self::Pickup => waiting::measure(run).await,
            Self::Full => drain::measure_full(run).await,
            Self::Log => ingest::measure_log(run).await,
            Self::Reads => ingest::measure_reads(run).await,
            Self::Items => items::measure(run).await,
            Self::Prices => prices::measure(run).await,
            Self::Idle => waiting::measure_idle(run).await,
        }
    }
}

/// What every measure is told.
pub struct Run<'a> {
    stand: &'a Stand,
    measure: Measure,
    time: Duration,
    runs: usize,
    connections: usize,
    jobs: i64,
}

impl Run<'_> {
    /// Progress, for whoever waits.
    fn say(&self, news: fmt::Arguments<'_>) {
        eprintln!("{:?}: {news}", self.measure);
    }
}

/// Measures and prints.
///
/// # Errors
/// What kept it from measuring: then nothing is printed.
pub async fn program(arguments: Arguments) -> Result<(), String> {
    let shutdown = Shutdown::on_signals(GRACE).map_err(process::text)?;
    let stand = Stand::start().await?;
    let measured = tokio::select! {
        measured = measure(&stand, &arguments) => measured,
        () = shutdown.drain.cancelled() => Err("interrupted".to_owned()),
    };
    let stopped = stand.stop().await;
    let report = measured?;
    stopped?;
    if arguments.json {
        return print_json(&report);
    }
    print(&report.text())?;
    Ok(())
}

async fn measure(stand: &Stand, arguments: &Arguments) -> Result<Report, String> {
    let Arguments { only, seconds, clients, runs, .. } = arguments;
    let measures = match &only[..] {
        [] => Measure::value_variants(),
        only => only,
    };
    let mut lines = Vec::new();
    for measure in measures {
        let run = Run {
            stand,
            measure: *measure,
            time: Duration::from_secs((*seconds).into()),
            runs: (*runs).into(),
            connections: (*clients).into(),
            jobs: i64::from(*seconds) * 20_000,
        };
        lines.extend(measure.run(&run).await.map_err(|error| format!("{measure:?}: {error}"))?);
    }
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        date: stand.bench.today().await.map_err(process::text)?,
        postgresql: stand.bench.version().await.map_err(process::text)?,
        cores: std::thread::available_parallelism().map_or(1, Into::into),
        optimized: !cfg!(debug_assertions),
        seconds: (*seconds).into(),
        runs: (*runs).into(),
        connections: (*clients).into(),
        lines,
    })
}
