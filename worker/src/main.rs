//! The worker executable for production: `DATABASE_URL=… worker`.

use std::process::ExitCode;

use runtime::{process, version};

fn main() -> ExitCode {
    let about = "Runs Millrace's jobs. Any number of workers may share one database.";
    version::handle_arguments("worker", about).unwrap_or_else(|| process::run("worker", worker::program()))
}
