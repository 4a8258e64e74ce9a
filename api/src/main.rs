//! The API server of production: `DATABASE_URL=… api`.

use std::process::ExitCode;

use runtime::{process, version};

fn main() -> ExitCode {
    let about = "Serves Millrace's HTTP API; any number of processes may share one database.";
    version::handle_arguments("api", about).unwrap_or_else(|| process::run("api", api::program()))
}
