//! The worker of production: `DATABASE_URL=… worker`.

use std::process::ExitCode;

use jobs::boot::{process, version};

fn main() -> ExitCode {
    let about = "Runs Millrace's jobs; any number of processes may share one database.";
    version::handle_arguments("worker", about).unwrap_or_else(|| process::run("worker", worker::program()))
}
