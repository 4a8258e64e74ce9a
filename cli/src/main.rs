//! The `millrace` command line: subcommands, shell completions and the manual page.

mod all_in_one;
mod audit;
mod bench;
mod bulk_results;
mod callbacks;
#[cfg(feature = "smart-contract")]
mod contract;
mod data_dir;
mod dead;
mod doctor;
mod find;
mod health;
mod jobs;
mod migrate;
mod operator;
mod output;
mod prove;
mod queues;
mod reindex;
mod replays;
mod scale;
mod schedules;
mod status;
mod transaction;
mod trends;
mod why;
mod workers;

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use runtime::{process, version::VERSION};

/// A durable job queue on PostgreSQL with an HTTP API
///
/// Without a command it runs the API and a worker in one process, with an embedded PostgreSQL unless DATABASE_URL is set.
#[derive(Parser)]
#[command(name = "millrace", version = VERSION.as_str())]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the HTTP API (needs DATABASE_URL)
    Api,
    /// Run jobs (needs DATABASE_URL)
    Worker,
    /// Check the health of a process
    Health(health::Arguments),
    /// Apply database migrations
    #[command(after_help = "\
Run it before a new release starts. A database that belongs to another program is refused before anything is changed.
Concurrent runs take turns. A migration waits up to 2 s for a table lock, then backs off and retries; the log names the
oldest open transaction. If no migration is pending, read permission is enough.

Examples:
  millrace migrate
  millrace migrate --wait 120              wait for a database that is still starting
  millrace migrate --patience 600          keep retrying for 10 minutes while tables are locked
  millrace migrate --status                exit with 0 if no migration is pending, else with 1
  millrace migrate --status --wait 120     wait until another process has applied the migrations")]
    Migrate(migrate::Arguments),
    /// Show what is wrong, and the state of all queues
    Status(status::Arguments),
    /// Explain why a job, or the job of a transaction, is not running
    Why(why::Arguments),
    /// Find what an id belongs to
    Find(find::Arguments),
    /// Show the timeline of a transaction
    Transaction(transaction::Arguments),
    /// Show dead letters by their errors; replay or discard them
    Dead(dead::Arguments),
    /// Show, pause, resume and stop replays of dead letters
    Replays(replays::Arguments),
    /// List, inspect, cancel and replay jobs
    #[command(arg_required_else_help = true)]
    Jobs(jobs::Arguments),
    /// Show, pause and resume queues
    Queues(queues::Arguments),
    /// Show workers and what they hold, or drain one
    Workers(workers::Arguments),
    /// List what operators did
    Audit(audit::Arguments),
    /// Show what happened in a queue over an hour, a day or two weeks
    Trends(trends::Arguments),
    /// Compute how many workers are needed
    Scale(scale::Arguments),
    /// Examine the database: what is wrong with it, or will be soon
    Doctor(doctor::Arguments),
    /// Show schedules and their past fires, or fire one now
    Schedules(schedules::Arguments),
    /// Show the destinations of callbacks, enable or test one
    Callbacks(callbacks::Arguments),
    /// Rebuild the search index without downtime
    Reindex(reindex::Arguments),
    /// Deploy the smart contract that stores interest rates
    #[cfg(feature = "smart-contract")]
    #[command(arg_required_else_help = true)]
    Contract(contract::Arguments),
    /// Measure throughput and latency on this machine against PostgreSQL baselines
    Bench(bench::Arguments),
    /// Check every promise on this machine, under real faults and load
    Prove(prove::Arguments),
    /// Print a shell completion script
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
    /// Run the worker that `bench` measures
    #[command(hide = true)]
    BenchWorker(bench::noop::Arguments),
    /// Run the worker that `prove` damages
    #[command(hide = true)]
    ProveWorker,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(help_or_error) => return print_help_or_error(&help_or_error),
    };
    match cli.command {
        None => process::run("millrace", all_in_one::program()),
        Some(Command::Api) => process::run("api", api::program()),
        Some(Command::Worker) => process::run("worker", worker::program()),
        Some(Command::Health(arguments)) => process::run("millrace health", health::program(arguments)),
        Some(Command::Migrate(arguments)) => process::run("migrate", migrate::program(arguments)),
        Some(Command::Status(arguments)) => run_check("millrace status", status::program(arguments)),
        Some(Command::Why(arguments)) => run_check("millrace why", why::program(arguments)),
        Some(Command::Find(arguments)) => run_check("millrace find", find::program(arguments)),
        Some(Command::Transaction(arguments)) => process::run("millrace transaction", transaction::program(arguments)),
        Some(Command::Dead(arguments)) => run_check("millrace dead", dead::program(arguments)),
        Some(Command::Replays(arguments)) => run_check("millrace replays", replays::program(arguments)),
        Some(Command::Workers(arguments)) => process::run("millrace workers", workers::program(arguments)),
        Some(Command::Audit(arguments)) => process::run("millrace audit", audit::program(arguments)),
        Some(Command::Trends(arguments)) => process::run("millrace trends", trends::program(arguments)),
        Some(Command::Scale(arguments)) => run_check("millrace scale", scale::program(arguments)),
        Some(Command::Doctor(arguments)) => run_for_status("millrace doctor", 2, doctor::program(arguments)),
        Some(Command::Jobs(arguments)) => process::run("millrace jobs", jobs::program(arguments)),
        Some(Command::Queues(arguments)) => process::run("millrace queues", queues::program(arguments)),
        Some(Command::Schedules(arguments)) => process::run("millrace schedules", schedules::program(arguments)),
        Some(Command::Callbacks(arguments)) => run_check("millrace callbacks", callbacks::program(arguments)),
        Some(Command::Reindex(arguments)) => process::run("millrace reindex", reindex::program(arguments)),
        #[cfg(feature = "smart-contract")]
        Some(Command::Contract(arguments)) => process::run("millrace contract", contract::program(arguments)),
        Some(Command::Bench(arguments)) => process::run("millrace bench", bench::program(arguments)),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "millrace", &mut script);
            exit_code_of(output::print_bytes(&script))
        }
        Some(Command::Man) => {
            let mut page = Vec::new();
            // Writing to a Vec does not fail.
            let _ = clap_mangen::Man::new(Cli::command()).render(&mut page);
            exit_code_of(output::print_bytes(&page))
        }
        Some(Command::BenchWorker(arguments)) => process::run("bench-worker", bench::noop::program(arguments)),
        Some(Command::Prove(arguments)) => run_for_status("millrace prove", 1, prove::program(arguments)),
        Some(Command::ProveWorker) => process::run("prove-worker", ::prove::worker_program()),
    }
}

/// Runs a command whose result is yes or no: the exit status is 0 or 1.
fn run_check(name: &str, program: impl Future<Output = anyhow::Result<bool>>) -> ExitCode {
    run_for_status(name, 1, async { anyhow::Ok(u8::from(!program.await?)) })
}

/// Runs a command whose result is an exit status. `failed` is the status when the command itself fails.
fn run_for_status(name: &str, failed: u8, program: impl Future<Output = anyhow::Result<u8>>) -> ExitCode {
    let mut found = failed;
    let status = process::run(name, async {
        found = program.await?;
        anyhow::Ok(())
    });
    if found == 0 { status } else { ExitCode::from(found) }
}

/// Prints what clap returns instead of arguments: help, a version, or an error on standard error.
fn print_help_or_error(help_or_error: &clap::Error) -> ExitCode {
    if help_or_error.use_stderr() {
        // If standard error is full as well, the exit code still reports the error.
        let _ = help_or_error.print();
        return ExitCode::from(2);
    }
    exit_code_of(output::report(help_or_error.print().and_then(|()| std::io::stdout().flush())))
}

fn exit_code_of(printed: anyhow::Result<()>) -> ExitCode {
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millrace: {error}");
            ExitCode::FAILURE
        }
    }
}
