//! The external service that processes transactions, in the test process: it remembers every call.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use poem::{EndpointExt, Request, Route, Server, handler, listener::TcpAcceptor, post, web::Data};
use tokio::{net::TcpListener, task::JoinHandle};

/// A running processor; it ends with the value.
pub struct Processor {
    pub url: String,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    /// How often each `Idempotency-Key` came.
    calls: Mutex<HashMap<String, usize>>,
    answer_after: Mutex<Duration>,
    answered: AtomicUsize,
}

impl Processor {
    /// Starts one that agrees with everything after this time.
    pub async fn start(answer_after: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/charge", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            calls: Mutex::default(),
            answer_after: Mutex::new(answer_after),
            answered: AtomicUsize::new(0),
        });
        let routes = Route::new().at("/charge", post(charge)).data(state.clone());
        let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).expect("an acceptor")).run(routes);
        let server = tokio::spawn(async move { server.await.expect("a server") });
        Self { url, state, server }
    }

    /// Changes the time for calls that come from now on.
    pub fn answer_after(&self, time: Duration) {
        *self.state.answer_after.lock().unwrap() = time;
    }

    /// Calls that came.
    pub fn calls(&self) -> usize {
        self.state.calls.lock().unwrap().values().sum()
    }

    /// Whether there was a call about this transaction.
    pub fn was_asked_about(&self, transaction_id: &str) -> bool {
        self.state.calls.lock().unwrap().contains_key(transaction_id)
    }

    /// Calls beyond the first of each transaction.
    pub fn repeated(&self) -> usize {
        self.state.calls.lock().unwrap().values().map(|calls| calls - 1).sum()
    }

    /// Calls that somebody waited for until the answer.
    pub fn answered(&self) -> usize {
        self.state.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[handler]
async fn charge(request: &Request, Data(state): Data<&Arc<State>>) {
    let key = request.header("Idempotency-Key").expect("an Idempotency-Key").to_owned();
    *state.calls.lock().unwrap().entry(key).or_default() += 1;
    let time = *state.answer_after.lock().unwrap();
    tokio::time::sleep(time).await;
    state.answered.fetch_add(1, Ordering::Relaxed);
}
