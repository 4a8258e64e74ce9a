//! The HTTP server for `/livez`, `/readyz` and `/metrics` of a worker.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use anyhow::{Result, anyhow};
use jobs::app::{App, Metrics};
use poem::{EndpointExt, Route, Server, get, handler, http::StatusCode, listener::TcpAcceptor, web::Data};
use runtime::shutdown::Shutdown;
use tokio::{net::TcpListener, task::JoinHandle};

/// Returns whether the worker holds a valid lease.
pub type LeaseCheck = Box<dyn Fn() -> bool + Send + Sync>;

/// The state that `/readyz` depends on.
#[derive(Clone)]
pub struct Readiness {
    pub app: App,
    /// Whether the worker may claim jobs; unset until the worker has started.
    pub lease: Arc<OnceLock<LeaseCheck>>,
    pub shutdown: Shutdown,
}

/// Serves on `address` until the returned task is aborted.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(address: SocketAddr, readiness: Readiness, metrics: Metrics) -> Result<JoinHandle<()>> {
    let listener =
        TcpListener::bind(address).await.map_err(|error| anyhow!("WORKER_HEALTH_PORT: {address}: {error}"))?;
    // Port 0 means any free port: log the actual one.
    let address = listener.local_addr()?;
    let acceptor = TcpAcceptor::from_tokio(listener)?;
    tracing::info!(%address, "serving health and metrics");
    let routes = Route::new()
        .at("/livez", get(livez))
        .at("/readyz", get(readyz))
        .at("/metrics", get(prometheus))
        .data(readiness)
        .data(metrics)
        .boxed();
    let server = Server::new_with_acceptor(acceptor).run(routes);
    Ok(tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the server for health and metrics has failed");
        }
    }))
}

#[handler]
fn livez() -> &'static str {
    "ok"
}

#[handler]
async fn readyz(Data(readiness): Data<&Readiness>) -> (StatusCode, String) {
    let state = if readiness.shutdown.drain.is_cancelled() {
        Err("draining".to_owned())
    } else {
        // Check the database first: while it is unreachable or read-only, it is also the reason for the missing lease.
        readiness.app.ready().await.and_then(|()| match readiness.lease.get() {
            Some(is_valid) if is_valid() => Ok(()),
            _ => Err("the worker has no lease yet, or could not renew it".to_owned()),
        })
    };
    match state {
        Ok(()) => (StatusCode::OK, "ready".into()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

#[handler]
async fn prometheus(Data(metrics): Data<&Metrics>) -> poem::Response {
    poem::Response::builder().content_type("text/plain; version=0.0.4; charset=utf-8").body(metrics().await)
}
