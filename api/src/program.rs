//! The API process: configuration, start, serving and shutdown.

use std::{io, net::SocketAddr};

use jobs::app::{self, App, Metrics};
use runtime::{
    config::EnvReader,
    open_files, process,
    shutdown::{GRACE, Shutdown},
    telemetry::Telemetry,
};
use tokio::net::{TcpListener, TcpSocket};

use crate::{
    build,
    config::ApiConfig,
    server::{self, ServerConfig},
};

/// Connections that the kernel keeps until they are accepted. If there are more, it ignores their first packet, and the client sends
/// it again after a second. Linux limits this to `net.core.somaxconn`, which is 4096 by default.
const BACKLOG: u32 = 4096;

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
    let listener = listen(&config)?;
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
pub fn listen(config: &ApiConfig) -> Result<TcpListener, String> {
    let address = SocketAddr::new(config.host, config.port);
    bind(address)
        .map_err(|error| format!("HOST, PORT: cannot listen on {address}: {error}; choose another, such as PORT=8001"))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted process need not wait until the connections of the last one are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpStream;

    use super::*;

    /// The default of the runtime, 128, was full whenever a process was busy for some 20 ms while clients connected.
    #[tokio::test]
    async fn hundreds_of_clients_connect_before_the_first_is_accepted() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
        let limit = limit.and_then(|limit| limit.trim().parse().ok()).unwrap_or(128);
        let mut connected = Vec::new();
        for number in 0..limit.min(600) {
            let connect = tokio::time::timeout(Duration::from_secs(10), TcpStream::connect(address)).await;
            connected
                .push(connect.unwrap_or_else(|_| panic!("client {number} has waited for 10 s")).expect("a connection"));
        }
    }
}
