//! The worker of production: `DATABASE_URL=… worker`.

use std::process::ExitCode;

fn main() -> ExitCode {
    jobs::boot::process::run("worker", worker::program())
}
