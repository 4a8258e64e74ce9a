//! The all-in-one process of `cargo run`: PostgreSQL, migrations, the API and one worker, without any setup.

use std::net::SocketAddr;

use anyhow::{Error, Result, bail};
use embedded_postgres::{Cluster, RunningServer, Search, Settings};
use jobs::app::{self, App};
use runtime::{
    config::EnvReader,
    db::Database,
    process,
    shutdown::{GRACE, Shutdown},
    telemetry::Telemetry,
};
use worker::health::HealthServer;

use crate::{
    data_dir::{create_writable, data_dir},
    migrate,
};

/// The database on the embedded PostgreSQL.
const DATABASE: &str = "millrace";

/// Starts all parts, serves until a stop signal arrives, and stops all parts.
///
/// # Errors
/// When the configuration is wrong, a part does not start, or a part fails later. One problem a line.
pub(crate) async fn program() -> Result<()> {
    let mut vars = EnvReader::from_env();
    let (api, mut jobs) = (api::config::ApiConfig::read(&mut vars), app::Config::read(&mut vars));
    app::require_choices(&mut vars, &jobs);
    let health = worker::config::health_address(&mut vars);
    let search = vars.text("PG_BIN_DIR").map(|folder| Search::parse(&folder)).unwrap_or_default();
    vars.finish(())?;
    let data_dir = data_dir();
    let writable = create_writable(&data_dir);
    if let Some(error) = writable.as_ref().err().filter(|_| jobs.database.is_none()) {
        let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
        bail!(
            "working folder: {} cannot be written: {error}; start in a writable folder, or set DATABASE_URL to a \
             running PostgreSQL",
            data_dir.display()
        );
    }
    if writable.is_ok() {
        jobs.telemetry.directory.get_or_insert_with(|| data_dir.join("logs"));
    }
    let telemetry = Telemetry::start(&jobs.telemetry, "millrace").map_err(Error::msg)?;
    if let (Err(error), None) = (&writable, &jobs.telemetry.directory) {
        tracing::warn!(folder = %data_dir.display(), %error, "logging to standard output only: the folder is not writable");
    }
    let shutdown = Shutdown::on_signals(GRACE)?;

    let listener = api::program::listen(&api).map_err(Error::msg)?;
    let (cluster, database) = match jobs.database.clone() {
        Some(database) => (None, database),
        None => {
            let mut settings = Settings::new(data_dir.join("postgres"));
            settings.search = search;
            tracing::info!("DATABASE_URL is unset: starting PostgreSQL in {}", settings.directory.display());
            let cluster = Cluster::start(settings).await?;
            cluster.ensure_database(DATABASE).await?;
            let database = Database::parse(&cluster.url(DATABASE)).map_err(Error::msg)?;
            (Some(cluster), database)
        }
    };
    process::log_configuration(&database);
    let result = run(&api, &jobs, &database, listener, &telemetry, &shutdown, health).await;
    if let Some(cluster) = cluster {
        cluster.stop().await?;
        tracing::info!("PostgreSQL stopped; its data stays in {}", data_dir.display());
    }
    result
}

/// The URL of the database of an all-in-one process that runs in this folder.
pub(crate) fn running_database() -> Option<String> {
    let server = RunningServer::find(&data_dir().join("postgres")).filter(RunningServer::is_ready);
    server.map(|server| server.url(DATABASE))
}

async fn run(
    api: &api::config::ApiConfig,
    jobs: &app::Config,
    database: &Database,
    listener: tokio::net::TcpListener,
    telemetry: &Telemetry,
    shutdown: &Shutdown,
    health: Option<SocketAddr>,
) -> Result<()> {
    let address = listener.local_addr()?;
    migrate::apply(database, migrate::PATIENCE).await?;
    let app = App::start(database, jobs, "all-in-one", &shutdown.drain)?;
    let health = HealthServer::start(health, &app, app.metrics(telemetry.metrics()), shutdown).await?;
    let worker = worker::start(&app, database, jobs.timing, shutdown)?;
    health.check_lease(worker.is_ready());
    // On standard error, because standard output may carry log lines in JSON.
    eprint!("{}", banner(address, jobs));
    let metrics = app.metrics(telemetry.metrics());
    api::program::serve(listener, app, api, metrics, shutdown).await;
    Ok(worker.stopped().await?)
}

/// The URLs, and commands to try first.
fn banner(address: SocketAddr, jobs: &app::Config) -> String {
    let delay = jobs.transactions.delay.as_secs_f64();
    let finish = match &jobs.transactions.processor {
        Some(_) => "once the processor has accepted it".to_owned(),
        None => format!("{delay} s later"),
    };
    format!(
        r#"
  Millrace is running. Press Ctrl-C to drain and stop it.

    API        http://{address}/
    API docs   http://{address}/docs
    Metrics    http://{address}/metrics

  Send a webhook, then read its status. It is PROCESSED {finish}:

    curl -i http://{address}/v1/webhooks/transactions -H 'Content-Type: application/json' \
      -d '{{"transaction_id":"txn_abc123","source_account":"acc_user_1","destination_account":"acc_merchant_1","amount":1500,"currency":"INR"}}'
    curl -i 'http://{address}/v1/transactions/txn_abc123?wait=60'

"#
    )
}
