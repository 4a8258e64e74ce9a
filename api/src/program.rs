//! The API process: configuration, start, serving and shutdown.

use std::net::SocketAddr;

use jobs::app::{self, App, Metrics};
use runtime::{
    config::EnvReader,
    open_files, process,
    shutdown::{GRACE, Shutdown},
    telemetry::Telemetry,
};
use tokio::net::TcpListener;

use crate::{
    build,
    config::ApiConfig,
    server::{self, ServerConfig},
};

/// Runs the API process: reads the environment and serves until shutdown.
///
/// # Errors
/// When the process cannot start: the reasons, one per line.
pub async fn program() -> Result<(), String> {
    let mut vars = EnvReader::from_env();
    let (config, jobs) = (ApiConfig::read(&mut vars), app::Config::read(&mut vars));
    let database = app::require_database(&mut vars, &jobs);
    app::require_choices(&mut vars, &jobs);
    let Some(database) = vars.finish(database).map_err(process::error_text)? else { return Ok(()) };
    let telemetry = Telemetry::start(&jobs.telemetry, "api")?;
    process::log_configuration(&database);
    let shutdown = Shutdown::on_signals(GRACE).map_err(process::error_text)?;
    let app = App::start(&database, &jobs, "api", &shutdown.drain).map_err(process::error_text)?;
    let listener = listen(&config).await?;
    let address = listener.local_addr().map_err(process::error_text)?;
    // Serves already now, so that liveness and readiness checks get a response while the schema check waits.
    let serving = tokio::spawn({
        let (app, metrics, shutdown) = (app.clone(), app.metrics(telemetry.metrics()), shutdown.clone());
        async move { serve(listener, app, &config, metrics, &shutdown).await }
    });
    if app.await_schema(&shutdown).await.map_err(process::error_text)? {
        tracing::info!(%address, "listening");
    }
    serving.await.map_err(process::error_text)?;
    tracing::info!("stopped");
    Ok(())
}

/// Binds the listen address. Called before every slow step, so that a port in use is reported at once.
///
/// # Errors
/// When the address cannot be bound; the text suggests another port.
pub async fn listen(config: &ApiConfig) -> Result<TcpListener, String> {
    let address = SocketAddr::new(config.host, config.port);
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("HOST, PORT: cannot listen on {address}: {error}; choose another, such as PORT=8001"))
}

/// Serves until shutdown. Returns once open requests have finished, or at once when `shutdown.now` is cancelled.
pub async fn serve(listener: TcpListener, app: App, config: &ApiConfig, metrics: Metrics, shutdown: &Shutdown) {
    let background_tasks = tokio::spawn({
        let app = app.clone();
        async move { app.listen_for_settlements().await }
    });
    let routes = build(&app, config, metrics, shutdown.drain.clone());
    let server_config = ServerConfig::for_open_files(open_files::raise_limit(), config.drain_delay);
    tracing::info!(max_connections = server_config.max_connections, "connection limit set");
    tokio::select! {
        () = server::serve(listener, routes, server_config, shutdown.drain.clone()) => {}
        () = shutdown.now.cancelled() => tracing::warn!("stopping now, open requests are aborted"),
    }
    // The background tasks end with the drain.
    let _ = background_tasks.await;
}
