//! `/livez`, `/readyz` and `/metrics` of a worker.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use jobs::{
    app::{App, Metrics},
    boot::{process, shutdown::Shutdown},
};
use poem::{EndpointExt, Route, Server, get, handler, http::StatusCode, listener::TcpAcceptor, web::Data};
use tokio::{net::TcpListener, task::JoinHandle};

/// Whether a lease stands.
pub type Lease = Box<dyn Fn() -> bool + Send + Sync>;

/// What readiness depends on.
#[derive(Clone)]
pub struct Ready {
    pub app: App,
    /// Whether the worker may claim; unset until there is a worker.
    pub lease: Arc<OnceLock<Lease>>,
    pub shutdown: Shutdown,
}

/// Serves on `address` until the task is aborted.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(address: SocketAddr, ready: Ready, metrics: Metrics) -> Result<JoinHandle<()>, String> {
    let listener =
        TcpListener::bind(address).await.map_err(|error| format!("WORKER_HEALTH_PORT: {address}: {error}"))?;
    // Port 0 is any free one: say which.
    let address = listener.local_addr().map_err(process::text)?;
    let acceptor = TcpAcceptor::from_tokio(listener).map_err(process::text)?;
    tracing::info!(%address, "health and metrics");
    let routes = Route::new()
        .at("/livez", get(livez))
        .at("/readyz", get(readyz))
        .at("/metrics", get(render))
        .data(ready)
        .data(metrics)
        .boxed();
    let server = Server::new_with_acceptor(acceptor).run(routes);
    Ok(tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "health and metrics are no longer served");
        }
    }))
}

#[handler]
fn livez() -> &'static str {
    "ok"
}

#[handler]
async fn readyz(Data(ready): Data<&Ready>) -> (StatusCode, String) {
    let state = if ready.shutdown.drain.is_cancelled() {
        Err("draining".to_owned())
    } else {
        // The database first: when it is away or read-only, that is also why there is no lease.
        ready.app.ready().await.and_then(|()| match ready.lease.get() {
            Some(stands) if stands() => Ok(()),
            _ => Err("there is no lease yet, or it could not be renewed".to_owned()),
        })
    };
    match state {
        Ok(()) => (StatusCode::OK, "ready".into()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

#[handler]
async fn render(Data(metrics): Data<&Metrics>) -> poem::Response {
    poem::Response::builder().content_type("text/plain; version=0.0.4; charset=utf-8").body(metrics().await)
}
