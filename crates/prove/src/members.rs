//! The members of a scene: the processes of the product, each with its configuration and its connection to the database.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    child::{self, Child},
    history::{Event, History},
    processor::Processor,
    proxy::Proxy,
    server::Server,
    worker::RECORDER,
};

/// The variables of every process: short times, and keys that must not appear in any output.
const VARIABLES: [(&str, &str); 10] = [
    ("QUEUE_LEASE_SECONDS", "1"),
    ("QUEUE_HEARTBEAT_SECONDS", "0.2"),
    ("QUEUE_RESCUE_SECONDS", "0.05"),
    ("QUEUE_POLL_SECONDS", "0.05"),
    ("PROCESSING_DELAY_SECONDS", "0.3"),
    ("PROCESSOR_TIMEOUT_SECONDS", "5"),
    ("LOG_FORMAT", "json"),
    ("PORT", "0"),
    ("API_KEY", "secret-of-prove-api-key"),
    ("ADMIN_API_KEY", "secret-of-prove-admin-key"),
];
/// What a process inherits: paths, and nothing that configures Millrace.
const INHERITED: [&str; 5] = ["PATH", "HOME", "TMPDIR", "TZ", "RUST_BACKTRACE"];
/// The part that all secrets have in common.
pub(crate) const SECRET: &str = "secret-of-prove";

/// A process of the product, and its connection to the database.
pub(crate) struct Member {
    /// `api`, `worker_1` or `worker_2`: the name of its log, and the end of its database role.
    pub name: &'static str,
    pub subcommand: &'static str,
    /// The program that its next start runs.
    pub program: PathBuf,
    /// More variables of this process alone.
    pub variables: Vec<(String, String)>,
    pub child: Child,
    pub proxy: Proxy,
}

/// The database role of a process, so that the triggers know whose session it is.
pub(crate) fn role(name: &str) -> String {
    format!("prove_{name}")
}

/// The variables of a process: its connections, and what all have in common.
///
/// # Errors
/// When the URL of the database cannot be formed.
pub(crate) fn variables(
    server: &Server,
    database: &str,
    name: &str,
    proxy: &Proxy,
    processor: &Processor,
) -> Result<Vec<(String, String)>> {
    let url = server.url_through(proxy.address, database, &role(name), &format!("{SECRET}-password"))?;
    let processor_url = processor.url.replacen("http://", &format!("http://prove:{SECRET}-processor@"), 1);
    let own = [
        ("DATABASE_URL", url),
        ("PROCESSOR_URL", format!("{processor_url}/charge")),
        (RECORDER, processor.url.clone()),
    ];
    let fixed = VARIABLES.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Ok(fixed.chain(own.map(|(name, value)| (name.to_owned(), value))).collect())
}

/// Starts a process of the product.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn spawn(
    program: &Path,
    folder: &Path,
    name: &str,
    subcommand: &str,
    variables: &[(String, String)],
    history: &History,
) -> Result<Child> {
    let child = Child::start(command(program, folder, subcommand, variables), name, folder)?;
    if subcommand != "api" {
        history.record(Event::Worker { role: role(name), pid: child.pid() });
    }
    Ok(child)
}

/// A command of the product, with these variables alone.
pub(crate) fn command(program: &Path, folder: &Path, subcommand: &str, variables: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    child::inherit_only(&mut command, &INHERITED);
    command.arg(subcommand).current_dir(folder).envs(variables.iter().map(|(name, value)| (name, value)));
    command
}

/// The text of the line of the log that reports readiness.
pub(crate) fn ready_line(subcommand: &str) -> &'static str {
    if subcommand == "api" { r#""event":"listening""# } else { "worker started" }
}

/// The URL of the API, from the line of its log that reports readiness.
///
/// # Errors
/// When the line has no address.
pub(crate) fn api_url(line: &str) -> Result<String> {
    Ok(format!("http://{}", child::listen_address(line)?))
}
