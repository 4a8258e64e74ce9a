//! The `millrace` command.

mod all_in_one;
mod bench;
#[cfg(feature = "smart-contract")]
mod contract;
mod health;
mod jobs;
mod migrate;
mod operator;
mod queues;
mod reindex;
mod report;
mod schedules;

use std::process::ExitCode;

use ::jobs::boot::process;
use clap::{Parser, Subcommand};

/// Durable job queues: webhooks in, work done once, status out.
///
/// Without a command: everything at once, with an embedded PostgreSQL unless DATABASE_URL is set.
#[derive(Parser)]
#[command(name = "millrace", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API (needs DATABASE_URL)
    Api,
    /// Run jobs (needs DATABASE_URL)
    Worker,
    /// Ask a process whether it is well
    Health(health::Arguments),
    /// Bring the database to this program's schema
    #[command(after_help = "\
Run it before a new release starts. Several at once take turns. A migration that needs a table which others hold waits 2 s, lets
them pass, and is tried again; with standard output it says which transaction is the oldest.

Examples:
  millrace migrate
  millrace migrate --patience 600")]
    Migrate(migrate::Arguments),
    /// List jobs, look at one, cancel, replay
    #[command(arg_required_else_help = true)]
    Jobs(jobs::Arguments),
    /// What is in each queue; pause one, and have it go on
    Queues(queues::Arguments),
    /// What is done at fixed times, and when it was; fire it now
    Schedules(schedules::Arguments),
    /// Have every item be found as it now is, while everything serves
    Reindex(reindex::Arguments),
    /// The smart contract that keeps interest rates: make one
    #[cfg(feature = "smart-contract")]
    #[command(arg_required_else_help = true)]
    Contract(contract::Arguments),
    /// Measure how fast Millrace is on this machine, beside what its database can do
    Bench(bench::Arguments),
    /// The worker that `bench` measures
    #[command(hide = true)]
    BenchWorker,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        None => process::run("millrace", all_in_one::program()),
        Some(Command::Api) => process::run("api", api::program()),
        Some(Command::Worker) => process::run("worker", worker::program()),
        Some(Command::Health(arguments)) => process::run("millrace health", health::program(arguments)),
        Some(Command::Migrate(arguments)) => process::run("migrate", migrate::program(arguments)),
        Some(Command::Jobs(arguments)) => process::run("millrace jobs", jobs::program(arguments)),
        Some(Command::Queues(arguments)) => process::run("millrace queues", queues::program(arguments)),
        Some(Command::Schedules(arguments)) => process::run("millrace schedules", schedules::program(arguments)),
        Some(Command::Reindex(arguments)) => process::run("millrace reindex", reindex::program(arguments)),
        #[cfg(feature = "smart-contract")]
        Some(Command::Contract(arguments)) => process::run("millrace contract", contract::program(arguments)),
        Some(Command::Bench(arguments)) => process::run("millrace bench", bench::program(arguments)),
        Some(Command::BenchWorker) => process::run("bench-worker", bench::noop::program()),
    }
}
