//! The outside world: a processor of transactions, and the place where jobs report what they did. It runs in this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use poem::{
    EndpointExt as _, Request, Route, Server, handler, http::StatusCode, listener::TcpAcceptor, post, web::Data,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::history::{Event, History};

/// A running processor. It stops when this is dropped.
pub(crate) struct Processor {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    history: Arc<History>,
    delay_ms: AtomicU64,
}

impl Processor {
    /// Starts a processor that accepts every transaction at once.
    ///
    /// # Errors
    /// When no port can be bound.
    pub(crate) async fn start(history: Arc<History>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(State { history, delay_ms: AtomicU64::new(0) });
        let routes = Route::new().at("/charge", post(charge)).at("/fired", post(fired)).data(state.clone());
        let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?).run(routes);
        // It ends with the task.
        let server = tokio::spawn(async move { drop(server.await) });
        Ok(Self { url, state, server })
    }

    /// Sets how long further calls take.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.state.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A call for a transaction, whose id is its idempotency key.
#[handler]
async fn charge(request: &Request, body: String, Data(state): Data<&Arc<State>>) -> StatusCode {
    let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let (Some(key), Some(id)) = (request.header("Idempotency-Key"), body["transaction_id"].as_str()) else {
        return StatusCode::BAD_REQUEST;
    };
    state.history.record(Event::Called { id: id.to_owned(), key: key.to_owned() });
    tokio::time::sleep(Duration::from_millis(state.delay_ms.load(Ordering::Relaxed))).await;
    StatusCode::OK
}

/// The report of a job of the schedule: the nominal time of its fire in seconds, and its id.
#[handler]
fn fired(body: String, Data(state): Data<&Arc<State>>) -> StatusCode {
    let Some((fire_time, job)) = body.split_once(' ').and_then(|(time, job)| Some((time.parse().ok()?, job))) else {
        return StatusCode::BAD_REQUEST;
    };
    state.history.record(Event::Fired { fire_time, job: job.to_owned() });
    StatusCode::OK
}
