//! The API of production: `DATABASE_URL=… api`.

use std::process::ExitCode;

fn main() -> ExitCode {
    jobs::boot::process::run("api", api::program())
}
