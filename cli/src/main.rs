//! The `millrace` command.

mod all_in_one;
mod migrate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jobs::boot::process;

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
    /// Bring the database to this program's schema
    Migrate,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        None => process::run("millrace", all_in_one::program()),
        Some(Command::Api) => process::run("api", api::program()),
        Some(Command::Worker) => process::run("worker", worker::program()),
        Some(Command::Migrate) => process::run("migrate", migrate::program()),
    }
}
