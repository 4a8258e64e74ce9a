//! The HTTP server for `/livez`, `/readyz` and `/metrics` of a worker.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
};

use anyhow::{Result, anyhow};
use jobs::app::{App, Metrics};
use poem::{
    EndpointExt, Response, Route, Server, get, handler,
    http::{HeaderValue, StatusCode, header},
    listener::TcpAcceptor,
    middleware::SetHeader,
    web::Data,
};
use runtime::{mutex::lock, shutdown::Shutdown};
use tokio::{net::TcpListener, task::JoinHandle};

/// Returns whether the worker holds a valid lease.
type LeaseCheck = Box<dyn Fn() -> bool + Send + Sync>;

/// The server for health and metrics. It stops when it is dropped.
pub struct HealthServer {
    readiness: Readiness,
    serving: Option<JoinHandle<()>>,
}

/// The state that `/readyz` depends on.
#[derive(Clone)]
struct Readiness {
    app: App,
    /// Whether the worker may claim jobs; unset until the worker has started.
    lease: Arc<OnceLock<LeaseCheck>>,
    shutdown: Shutdown,
    /// The reason of the last response, if that was a 503. A new reason is logged.
    reason: Arc<Mutex<Option<String>>>,
}

impl HealthServer {
    /// Serves on `address`; without one, nothing is served.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(address: Option<SocketAddr>, app: &App, metrics: Metrics, shutdown: &Shutdown) -> Result<Self> {
        let readiness =
            Readiness { app: app.clone(), lease: Arc::default(), shutdown: shutdown.clone(), reason: Arc::default() };
        let serving = match address {
            Some(address) => Some(serve(address, readiness.clone(), metrics).await?),
            None => None,
        };
        Ok(Self { readiness, serving })
    }

    /// The worker has started: from now on `/readyz` also depends on this check of its lease. Called once.
    pub fn check_lease(&self, is_valid: impl Fn() -> bool + Send + Sync + 'static) {
        // The cell is empty, because this is called once.
        let _ = self.readiness.lease.set(Box::new(is_valid));
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn serve(address: SocketAddr, readiness: Readiness, metrics: Metrics) -> Result<JoinHandle<()>> {
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
        .catch_all_error(async |error: poem::Error| problem(error.status()))
        .with(SetHeader::new().overriding(header::CACHE_CONTROL, "no-store"))
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
async fn readyz(Data(readiness): Data<&Readiness>) -> Response {
    let reason = readiness.check().await.err();
    let mut last = lock(&readiness.reason);
    if let Some(reason) = reason.as_ref().filter(|reason| last.as_ref() != Some(*reason)) {
        tracing::info!(reason, "not ready");
    }
    last.clone_from(&reason);
    drop(last);
    match reason {
        None => Response::builder().content_type("text/plain; charset=utf-8").body("ready"),
        Some(_) => problem(StatusCode::SERVICE_UNAVAILABLE),
    }
}

impl Readiness {
    /// Checks whether the worker may claim jobs. The error is the reason, for the log only: it may name parts of the system.
    async fn check(&self) -> Result<(), String> {
        if self.shutdown.drain.is_cancelled() {
            return Err("draining".into());
        }
        // Check the database first: while it is unreachable or read-only, it is also the reason for the missing lease.
        self.app.ready().await?;
        match self.lease.get() {
            Some(is_valid) if is_valid() => Ok(()),
            _ => Err("the worker has no lease yet, or could not renew it".into()),
        }
    }
}

/// A problem response (RFC 9457), as the API sends it.
fn problem(status: StatusCode) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let detail = match status {
        StatusCode::SERVICE_UNAVAILABLE => "Not available at the moment, please try again.",
        _ => title,
    };
    let status_code = status.as_u16();
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status_code},\"detail\":\"{detail}\"}}\n"
    );
    let mut response = Response::builder().status(status).content_type("application/problem+json").body(body);
    match status {
        StatusCode::SERVICE_UNAVAILABLE => {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        _ => {}
    }
    response
}

#[handler]
async fn prometheus(Data(metrics): Data<&Metrics>) -> Response {
    Response::builder().content_type("text/plain; version=0.0.4; charset=utf-8").body(metrics().await)
}
