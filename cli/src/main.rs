//! The `millrace` command.

mod all_in_one;
mod bench;
#[cfg(feature = "smart-contract")]
mod contract;
mod health;
mod home;
mod jobs;
mod migrate;
mod operator;
mod queues;
mod reindex;
mod report;
mod schedules;

use std::{io::Write, process::ExitCode};

use ::jobs::boot::{process, version::VERSION};
use clap::{CommandFactory, Parser, Subcommand};

/// Durable job queues: webhooks in, work done once, status out.
///
/// Without a command: everything at once, with an embedded PostgreSQL unless DATABASE_URL is set.
#[derive(Parser)]
#[command(name = "millrace", version = VERSION.as_str())]
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
Run it before a new release starts. It refuses a database that is neither empty nor Millrace's before it changes anything.
Several at once take turns. A migration that needs a table which others hold waits 2 s, lets them pass, and is tried again;
the log says which transaction is the oldest. With nothing to do it needs no right but to read.

Examples:
  millrace migrate
  millrace migrate --wait 120              wait for a database that is still starting
  millrace migrate --patience 600
  millrace migrate --status                exit status 0 when nothing is missing, else 1
  millrace migrate --status --wait 120     wait until another process has migrated it")]
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
    /// Print a script that completes commands in a shell
    #[command(after_help = "\
Examples:
  millrace completions bash > ~/.local/share/bash-completion/completions/millrace
  millrace completions zsh > ~/.zfunc/_millrace")]
    Completions { shell: clap_complete::Shell },
    /// Print the manual page
    #[command(after_help = "\
Example:
  millrace man > ~/.local/share/man/man1/millrace.1")]
    Man,
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
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "millrace", &mut script);
            print(&script)
        }
        Some(Command::Man) => {
            let mut page = Vec::new();
            // Writing to a Vec does not fail.
            let _ = clap_mangen::Man::new(Cli::command()).render(&mut page);
            print(&page)
        }
        Some(Command::BenchWorker) => process::run("bench-worker", bench::noop::program()),
    }
}

/// Prints bytes as they are.
fn print(bytes: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millrace: standard output: {error}");
            ExitCode::FAILURE
        }
    }
}
