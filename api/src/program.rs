//! The API process, from its environment to its end.

use std::{net::SocketAddr, sync::Arc};

use futures_util::FutureExt;
use jobs::{
    app::{self, App},
    boot::{
        open_files, process,
        shutdown::{GRACE, Shutdown},
        telemetry::Telemetry,
    },
    config::EnvReader,
};
use tokio::net::TcpListener;

use crate::{
    Parts, build,
    config::Config,
    health::Metrics,
    server::{self, Settings},
};

/// The whole program: reads the environment, serves until it is told to stop.
///
/// # Errors
/// Why it could not start, one problem a line.
pub async fn program() -> Result<(), String> {
    let mut vars = EnvReader::from_env();
    let (config, jobs) = (Config::read(&mut vars), app::Config::read(&mut vars));
    let database = app::require_database(&mut vars, &jobs);
    app::require_choices(&mut vars, &jobs);
    let Some(database) = vars.finish(database).map_err(process::text)? else { return Ok(()) };
    let telemetry = Telemetry::start(&jobs.telemetry, "api")?;
    process::announce(&database);
    let shutdown = Shutdown::on_signals(GRACE).map_err(process::text)?;
    let app = App::start(&database, &jobs, "api", &shutdown.drain).map_err(process::text)?;
    let listener = listen(&config).await?;
    let address = listener.local_addr().map_err(process::text)?;
    // Served from the start: whoever asks whether the process lives, or is ready, gets an answer while it waits.
    let serving = tokio::spawn({
        let (app, metrics, shutdown) = (app.clone(), app.metrics(telemetry.metrics()), shutdown.clone());
        async move { serve(listener, app, &config, metrics, &shutdown).await }
    });
    if app.await_schema(&shutdown).await.map_err(process::text)? {
        tracing::info!(%address, "listening");
    }
    serving.await.map_err(process::text)?;
    tracing::info!("stopped");
    Ok(())
}

/// Takes the port before anything slow happens, so that one in use is reported at once.
///
/// # Errors
/// Why the address cannot be had.
pub async fn listen(config: &Config) -> Result<TcpListener, String> {
    let address = SocketAddr::new(config.host, config.port);
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("HOST, PORT: cannot listen on {address}: {error}; choose another, such as PORT=8001"))
}

/// Serves until it is told to drain, and until it has drained or is told to end at once.
pub async fn serve(listener: TcpListener, app: App, config: &Config, metrics: Metrics, shutdown: &Shutdown) {
    let watching = tokio::spawn({
        let app = app.clone();
        async move { app.listen_for_settlements().await }
    });
    let parts = Parts {
        transactions: app.transactions.clone(),
        users: app.users.clone(),
        items: app.items.clone(),
        search: app.search.clone(),
        rates: app.rates.clone(),
        probes: app.probes.clone(),
        redis: app.redis.clone(),
        logs: app.logs.clone(),
        prices: app.prices.clone(),
        readiness: Arc::new(move || {
            let app = app.clone();
            async move { tokio::try_join!(app.ready(), app.rates.ready()).map(drop) }.boxed()
        }),
        metrics,
        draining: shutdown.drain.clone(),
    };
    let settings = Settings::within(open_files::raise(), config.drain_delay);
    tracing::info!(connections = settings.connections, "connections at a time");
    tokio::select! {
        () = server::serve(listener, build(parts, config), settings, shutdown.drain.clone()) => {}
        () = shutdown.now.cancelled() => tracing::warn!("stopping at once: open requests are cut off"),
    }
    // It ends with the drain.
    let _ = watching.await;
}
