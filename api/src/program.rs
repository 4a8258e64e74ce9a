//! The API process, from its environment to its end.

use std::{net::SocketAddr, sync::Arc};

use futures_util::FutureExt;
use jobs::{
    app::{self, App},
    boot::{
        process,
        shutdown::{CancellationToken, GRACE, Shutdown},
        telemetry::Telemetry,
    },
    config::Vars,
};
use tokio::net::TcpListener;

use crate::{Parts, build, config::Config, health::Metrics, server};

/// The whole program: reads the environment, serves until it is told to stop.
///
/// # Errors
/// Why it could not start, one problem a line.
pub async fn program() -> Result<(), String> {
    let mut vars = Vars::from_env();
    let (config, jobs) = (Config::read(&mut vars), app::Config::read(&mut vars));
    let database = app::require_database(&mut vars, &jobs);
    let Some(database) = vars.finish(database).map_err(process::text)? else { return Ok(()) };
    let telemetry = Telemetry::start(&jobs.telemetry, "api")?;
    let shutdown = Shutdown::on_signals(GRACE).map_err(process::text)?;
    let app = App::start(&database, &jobs, "api", &shutdown.drain).map_err(process::text)?;
    let listener = listen(&config).await?;
    if !app.await_schema(&shutdown).await.map_err(process::text)? {
        return Ok(());
    }
    let address = listener.local_addr().map_err(process::text)?;
    tracing::info!(%address, "listening");
    serve(listener, app, &config, Arc::new(telemetry.metrics()), shutdown.drain).await;
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

/// Serves until `stop`, then drains.
pub async fn serve(listener: TcpListener, app: App, config: &Config, metrics: Metrics, stop: CancellationToken) {
    let watching = tokio::spawn({
        let app = app.clone();
        async move { app.watch().await }
    });
    let parts = Parts {
        transactions: app.transactions.clone(),
        readiness: Arc::new(move || {
            let app = app.clone();
            async move { app.ready().await }.boxed()
        }),
        metrics,
        draining: stop.clone(),
    };
    server::serve(listener, build(parts, config), stop).await;
    // It ends with `stop`.
    let _ = watching.await;
}
