//! `cargo run`: PostgreSQL, migrations, API and one worker in one process, with nothing set up beforehand.

use std::path::PathBuf;

use jobs::{
    app::{self, App},
    boot::{
        db::Database,
        postgres::{Cluster, Running, Search, Settings},
        process,
        shutdown::{GRACE, Shutdown},
        telemetry::Telemetry,
    },
    config::Vars,
};

use crate::migrate;

/// Everything this program keeps between runs is in here.
pub const HOME: &str = ".millrace";
/// The embedded PostgreSQL's database.
const DATABASE: &str = "millrace";

/// The whole program: starts everything, serves until it is told to stop, and stops everything.
///
/// # Errors
/// Why it could not start, or what ended it, one problem a line.
pub async fn program() -> Result<(), String> {
    let mut vars = Vars::from_env();
    let (api, mut jobs) = (api::config::Config::read(&mut vars), app::Config::read(&mut vars));
    let search = vars.text("PG_BIN_DIR").map(|folder| Search::parse(&folder)).unwrap_or_default();
    vars.finish(()).map_err(process::text)?;
    jobs.telemetry.directory.get_or_insert_with(|| PathBuf::from(HOME).join("logs"));
    let telemetry = Telemetry::start(&jobs.telemetry, "millrace")?;
    let shutdown = Shutdown::on_signals(GRACE).map_err(process::text)?;

    let listener = api::program::listen(&api).await?;
    let address = listener.local_addr().map_err(process::text)?;
    let (cluster, database) = match jobs.database.clone() {
        Some(database) => (None, database),
        None => {
            let mut settings = Settings::new(PathBuf::from(HOME).join("postgres"));
            settings.search = search;
            tracing::info!("DATABASE_URL is unset: starting PostgreSQL in {}", settings.directory.display());
            let cluster = Cluster::start(settings).await.map_err(process::text)?;
            cluster.ensure_database(DATABASE).await.map_err(process::text)?;
            let database = Database::parse(&cluster.url(DATABASE))?;
            (Some(cluster), database)
        }
    };
    let ended = run(&api, &jobs, &database, listener, &telemetry, &shutdown, address).await;
    if let Some(cluster) = cluster {
        cluster.stop().await.map_err(process::text)?;
        tracing::info!("PostgreSQL stopped; its data stays in {HOME}");
    }
    ended
}

/// The database of an all-in-one that runs in this folder.
pub fn running_database() -> Option<String> {
    let server = Running::find(&PathBuf::from(HOME).join("postgres")).filter(Running::is_ready);
    server.map(|server| server.url(DATABASE))
}

async fn run(
    api: &api::config::Config,
    jobs: &app::Config,
    database: &Database,
    listener: tokio::net::TcpListener,
    telemetry: &Telemetry,
    shutdown: &Shutdown,
    address: std::net::SocketAddr,
) -> Result<(), String> {
    migrate::apply(database, migrate::PATIENCE).await?;
    let app = App::start(database, jobs, "all-in-one", &shutdown.drain).map_err(process::text)?;
    let worker = worker::start(&app, database, jobs.timing, shutdown)?;
    print!("{}", banner(address, jobs));
    let metrics = app.metrics(telemetry.metrics());
    api::program::serve(listener, app, api, metrics, shutdown).await;
    worker.stopped().await.map_err(process::text)
}

/// What a newcomer needs next.
fn banner(address: std::net::SocketAddr, jobs: &app::Config) -> String {
    let delay = jobs.transactions.delay.as_secs_f64();
    let finish = match &jobs.transactions.processor {
        Some(_) => "once the processor has agreed".to_owned(),
        None => format!("{delay} s later"),
    };
    format!(
        r#"
  Millrace is running. Ctrl-C drains and stops all of it.

    API        http://{address}/
    API docs   http://{address}/docs
    Metrics    http://{address}/metrics

  Send a webhook, then look at it; it is PROCESSED {finish}:

    curl -i http://{address}/v1/webhooks/transactions -H 'Content-Type: application/json' \
      -d '{{"transaction_id":"txn_abc123","source_account":"acc_user_1","destination_account":"acc_merchant_1","amount":1500,"currency":"INR"}}'
    curl -i 'http://{address}/v1/transactions/txn_abc123?wait=60'

"#
    )
}
