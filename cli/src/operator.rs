//! Shared helpers of the operator commands: the database connection, and who acts why.

use anyhow::{Error, Result, anyhow};
use jobs::app::{self, App};
use queue::{
    Operator,
    operator::audit::{Order, Via},
};
use runtime::{config::EnvReader, db::Database};
use tokio_util::sync::CancellationToken;

use crate::{all_in_one, data_dir::data_dir};

/// Connects the operator interface of the queue to the database that [`app()`] finds.
///
/// # Errors
/// When the configuration is wrong, or the database cannot be reached or has another schema.
pub(crate) async fn connect() -> Result<Operator> {
    Ok(app().await?.operator)
}

/// Connects all features to `DATABASE_URL`, or to the PostgreSQL of an all-in-one process that runs in this folder.
///
/// # Errors
/// When the configuration is wrong, or the database cannot be reached or has another schema.
pub(crate) async fn app() -> Result<App> {
    let (config, database) = configuration()?;
    let app = App::start(&database, &config, "operator", &CancellationToken::new())?;
    app.check_schema().await.map_err(Error::msg)?;
    Ok(app)
}

/// Reads the configuration: the database of `DATABASE_URL`, or the PostgreSQL of an all-in-one process that runs in this
/// folder.
///
/// # Errors
/// When the configuration is wrong, or there is neither.
pub(crate) fn configuration() -> Result<(app::Config, Database)> {
    let mut vars = EnvReader::from_env();
    let config = app::Config::read(&mut vars);
    vars.finish(())?;
    let database = match config.database.clone() {
        Some(database) => database,
        None => Database::parse(&all_in_one::running_database().ok_or_else(|| {
            let data_dir = std::path::absolute(data_dir()).unwrap_or_default();
            anyhow!(
                "DATABASE_URL is unset, and no all-in-one keeps its data in {}: set DATABASE_URL, such as \
                 postgres://user:password@localhost:5432/millrace, or change to the folder in which `cargo run` runs",
                data_dir.display()
            )
        })?)
        .map_err(Error::msg)?,
    };
    Ok((config, database))
}

/// The order of the person who runs this command: the name in `MILLRACE_ACTOR`, else user and host.
///
/// # Errors
/// When the reason or the name is empty or too long.
pub(crate) fn order(reason: &str) -> Result<Order> {
    let actor = std::env::var("MILLRACE_ACTOR").ok().filter(|name| !name.trim().is_empty()).unwrap_or_else(|| {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
        let user = user.map_or_else(|| "unknown".into(), |user| user.name);
        let host =
            nix::unistd::gethostname().map_or_else(|_| "host".into(), |name| name.to_string_lossy().into_owned());
        format!("{user}@{host}")
    });
    Order::new(&actor, Via::Cli, reason).map_err(anyhow::Error::msg)
}

/// Reads `--reason`.
///
/// # Errors
/// When it is empty or longer than 500 characters.
pub(crate) fn parse_reason(text: &str) -> Result<String, String> {
    Order::new("operator", Via::Cli, text).map(|order| order.reason)
}
