//! A fake receiver of callbacks: it responds by a script, and records every message.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jobs::transactions::signature::{self, SignatureHeaders};
use poem::{
    Endpoint, EndpointExt, Request, Response, Server, endpoint::make, http::HeaderMap, http::StatusCode,
    listener::TcpAcceptor,
};
use serde_json::Value;
use time::OffsetDateTime;

use crate::harness::eventually;

/// One message that arrived.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub at: Instant,
    /// With its query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Message {
    /// The value of a header; empty if the header is missing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII")).unwrap_or_default()
    }

    pub(super) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// Whether the holder of this secret has signed the message.
    pub(super) fn is_signed_by(&self, secret: &[u8]) -> bool {
        let headers = SignatureHeaders {
            id: self.id().as_bytes(),
            timestamp: self.header("webhook-timestamp").as_bytes(),
            signature: self.header("webhook-signature").as_bytes(),
        };
        signature::verify(headers, self.body.as_bytes(), [secret], OffsetDateTime::now_utc()).is_ok()
    }
}

/// A response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    pub status: u16,
    pub header: Option<(&'static str, &'static str)>,
    pub takes: Duration,
}

impl Reply {
    pub(super) const OK: Self = Self::status(204);

    pub(super) const fn status(status: u16) -> Self {
        Self { status, header: None, takes: Duration::ZERO }
    }
}

struct State {
    messages: Vec<Message>,
    /// The responses to the next messages.
    script: VecDeque<Reply>,
    /// The response when the script has ended.
    usual: Reply,
}

/// The service. It ends with the test.
pub(super) struct FakeReceiver {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl FakeReceiver {
    /// Starts a receiver that responds to the first messages by this script, and to all others as usual.
    pub(super) async fn start(script: &[Reply], usual: Reply) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = script.iter().copied().collect();
        let state = Arc::new(Mutex::new(State { messages: Vec::new(), script, usual }));
        let endpoint = endpoint(state.clone());
        tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).unwrap()).run(endpoint));
        Self { url, state }
    }

    /// Changes the response to all further messages.
    pub(super) fn respond(&self, usual: Reply) {
        self.state.lock().unwrap().usual = usual;
    }

    /// The messages so far.
    pub(super) fn messages(&self) -> Vec<Message> {
        self.state.lock().unwrap().messages.clone()
    }

    /// Waits until so many messages have arrived, and returns them.
    pub(super) async fn wait_for(&self, count: usize) -> Vec<Message> {
        eventually(&format!("{count} messages"), super::SOON, async || self.messages().len() >= count).await;
        self.messages()
    }
}

fn endpoint(state: Arc<Mutex<State>>) -> impl Endpoint + 'static {
    make(move |mut request: Request| {
        let state = state.clone();
        async move {
            let at = Instant::now();
            assert_eq!(request.method(), "POST");
            let (path, headers) = (request.uri().to_string(), request.headers().clone());
            let body = request.take_body().into_string().await.unwrap();
            let reply = {
                let mut state = state.lock().unwrap();
                state.messages.push(Message { at, path, headers, body });
                state.script.pop_front().unwrap_or(state.usual)
            };
            tokio::time::sleep(reply.takes).await;
            let response = Response::builder().status(StatusCode::from_u16(reply.status).unwrap());
            let response =
                reply.header.into_iter().fold(response, |response, (name, value)| response.header(name, value));
            // A status without a body must have none.
            if reply.status == 204 { response.finish() } else { response.body("the reason") }
        }
    })
    .map_to_response()
}
