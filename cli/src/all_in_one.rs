//! `cargo run`: PostgreSQL, migrations, API and one worker in one process, with nothing set up beforehand.

use std::{io, path::Path};

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

use crate::{
    home::{home, prepare},
    migrate,
};

/// The embedded PostgreSQL's database.
const DATABASE: &str = "millrace";

/// The whole program: starts everything, serves until it is told to stop, and stops everything.
///
/// # Errors
/// Why it could not start, or what ended it, one problem a line.
pub async fn program() -> Result<(), String> {
    let mut vars = Vars::from_env();
    let (api, mut jobs) = (api::config::ApiConfig::read(&mut vars), app::Config::read(&mut vars));
    app::require_choices(&mut vars, &jobs);
    let search = vars.text("PG_BIN_DIR").map(|folder| Search::parse(&folder)).unwrap_or_default();
    vars.finish(()).map_err(process::text)?;
    let home = home();
    let usable = prepare(&home);
    if let Some(error) = usable.as_ref().err().filter(|_| jobs.database.is_none()) {
        return Err(unusable(&home, error));
    }
    if usable.is_ok() {
        jobs.telemetry.directory.get_or_insert_with(|| home.join("logs"));
    }
    let telemetry = Telemetry::start(&jobs.telemetry, "millrace")?;
    if let (Err(error), None) = (&usable, &jobs.telemetry.directory) {
        tracing::warn!(folder = %home.display(), %error, "logs go to standard output only: the folder cannot be written");
    }
    let shutdown = Shutdown::on_signals(GRACE).map_err(process::text)?;

    let listener = api::program::listen(&api).await?;
    let address = listener.local_addr().map_err(process::text)?;
    let (cluster, database) = match jobs.database.clone() {
        Some(database) => (None, database),
        None => {
            let mut settings = Settings::new(home.join("postgres"));
            settings.search = search;
            tracing::info!("DATABASE_URL is unset: starting PostgreSQL in {}", settings.directory.display());
            let cluster = Cluster::start(settings).await.map_err(process::text)?;
            cluster.ensure_database(DATABASE).await.map_err(process::text)?;
            let database = Database::parse(&cluster.url(DATABASE))?;
            (Some(cluster), database)
        }
    };
    process::announce(&database);
    let ended = run(&api, &jobs, &database, listener, &telemetry, &shutdown, address).await;
    if let Some(cluster) = cluster {
        cluster.stop().await.map_err(process::text)?;
        tracing::info!("PostgreSQL stopped; its data stays in {}", home.display());
    }
    ended
}

fn unusable(home: &Path, error: &io::Error) -> String {
    let home = std::path::absolute(home).unwrap_or_else(|_| home.to_owned());
    format!(
        "working folder: {} cannot be written: {error}; start in a folder that can be, or set DATABASE_URL to a \
         PostgreSQL that runs already",
        home.display()
    )
}

/// The database of an all-in-one that runs in this folder.
pub fn running_database() -> Option<String> {
    let server = Running::find(&home().join("postgres")).filter(Running::is_ready);
    server.map(|server| server.url(DATABASE))
}

async fn run(
    api: &api::config::ApiConfig,
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
    // Not on standard output: there may be lines of JSON.
    eprint!("{}", banner(address, jobs));
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
