//! A fake of the external service that processes transactions. It runs in the test process and records every call.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use poem::{EndpointExt, Request, Route, Server, handler, listener::TcpAcceptor, post, web::Data};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};

/// The delay of calls that a test holds until it releases them: longer than any test.
pub(crate) const UNTIL_RELEASED: Duration = Duration::from_secs(3600);

/// A running processor; dropping it stops the server.
pub(crate) struct Processor {
    pub url: String,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    /// The number of calls per `Idempotency-Key`.
    calls: Mutex<HashMap<String, usize>>,
    delay: Mutex<Duration>,
    /// Ends the delays of all calls under way.
    release: Notify,
    completed: AtomicUsize,
}

impl Processor {
    /// Starts a processor that accepts every transaction after this delay.
    pub(crate) async fn start(delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/charge", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            calls: Mutex::default(),
            delay: Mutex::new(delay),
            release: Notify::new(),
            completed: AtomicUsize::new(0),
        });
        let routes = Route::new().at("/charge", post(charge)).data(state.clone());
        let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).expect("an acceptor")).run(routes);
        let server = tokio::spawn(async move { server.await.expect("a server") });
        Self { url, state, server }
    }

    /// Sets the delay of further calls.
    pub(crate) fn set_delay(&self, delay: Duration) {
        *self.state.delay.lock().unwrap() = delay;
    }

    /// Responds to all calls under way. Further calls have their delay.
    pub(crate) fn release(&self) {
        self.state.release.notify_waiters();
    }

    /// The number of calls.
    pub(crate) fn calls(&self) -> usize {
        self.state.calls.lock().unwrap().values().sum()
    }

    /// Whether there was a call for this transaction.
    pub(crate) fn was_called_for(&self, transaction_id: &str) -> bool {
        self.state.calls.lock().unwrap().contains_key(transaction_id)
    }

    /// The number of calls after the first one of each transaction.
    pub(crate) fn repeated_calls(&self) -> usize {
        self.state.calls.lock().unwrap().values().map(|calls| calls - 1).sum()
    }

    /// The number of calls whose caller waited for the response.
    pub(crate) fn completed_calls(&self) -> usize {
        self.state.completed.load(Ordering::Relaxed)
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
    // A call that is counted has its delay, and can be released.
    let (delay, released) = (*state.delay.lock().unwrap(), state.release.notified());
    *state.calls.lock().unwrap().entry(key).or_default() += 1;
    tokio::select! { () = tokio::time::sleep(delay) => {} () = released => {} }
    state.completed.fetch_add(1, Ordering::Relaxed);
}
