//! A fake Elasticsearch that refuses what a real one refuses, and fails on demand.
//!
//! `responses` compares it with a real engine.

mod bulk;
mod index;
mod query;
mod validate;

use std::sync::{Arc, Mutex, MutexGuard};

use poem::{
    Endpoint, EndpointExt, Request, Response, Server,
    endpoint::make,
    http::{Method, StatusCode},
    listener::TcpAcceptor,
};
use serde_json::{Value, json};

use index::Indexes;

/// Status and body of a response.
type FakeResponse = (u16, Value);
/// An error is a response, too.
type FakeResult = Result<FakeResponse, FakeResponse>;

/// How the server responds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FakeMode {
    Healthy,
    /// Responds to every request with this status.
    Rejecting(u16),
    /// Reads requests and never responds.
    Silent,
    /// Refuses every second write of the next bulk with this status.
    RejectingHalfOfBulk(u16),
}

#[derive(Debug)]
pub(super) struct State {
    pub mode: FakeMode,
    pub indexes: Indexes,
    /// `METHOD path?query` of every request.
    pub requests: Vec<String>,
    /// The requests with a body, and their bodies.
    pub sent: Vec<(String, String)>,
    /// The required `Authorization` header.
    pub authorization: Option<String>,
}

/// The server. It ends with the test.
#[derive(Clone)]
pub(super) struct FakeElasticsearch {
    pub address: std::net::SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FakeElasticsearch {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            mode: FakeMode::Healthy,
            indexes: Indexes::default(),
            requests: Vec::new(),
            sent: Vec::new(),
            authorization: None,
        };
        let state = Arc::new(Mutex::new(state));
        let endpoint = build_endpoint(state.clone());
        tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).unwrap()).run(endpoint));
        Self { address, state }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn set_mode(&self, mode: FakeMode) {
        self.state().mode = mode;
    }

    /// The number of searches that it received.
    pub(super) fn count_searches(&self) -> usize {
        self.state().requests.iter().filter(|request| request.contains("/_search")).count()
    }
}

fn build_endpoint(state: Arc<Mutex<State>>) -> impl Endpoint + 'static {
    make(move |mut request: Request| {
        let state = state.clone();
        async move {
            let body = request.take_body().into_string().await.unwrap();
            let mode = {
                let mut state = state.lock().unwrap();
                let line = format!("{} {}", request.method(), request.uri());
                if !body.is_empty() {
                    state.sent.push((line.clone(), body.clone()));
                }
                state.requests.push(line);
                state.mode
            };
            if mode == FakeMode::Silent {
                std::future::pending::<()>().await;
            }
            let (status, body) = respond(&mut state.lock().unwrap(), &request, &body);
            let text = if request.method() == Method::HEAD { String::new() } else { body.to_string() };
            let response = Response::builder().status(StatusCode::from_u16(status).unwrap());
            response.content_type("application/json").body(text)
        }
    })
    .map_to_response()
}

/// An error in Elasticsearch's form.
fn error(status: u16, kind: &str, reason: impl Into<String>) -> FakeResponse {
    (status, json!({ "error": { "type": kind, "reason": reason.into() }, "status": status }))
}

/// An error that is found before a request reaches its handler: a plain text.
fn text_error(status: u16, reason: impl Into<String>) -> FakeResponse {
    (status, json!({ "error": reason.into(), "status": status }))
}

fn respond(state: &mut State, request: &Request, body: &str) -> FakeResponse {
    if let FakeMode::Rejecting(status) = state.mode {
        return error(status, "es_rejected_execution_exception", "rejecting mode");
    }
    if let Some(expected) = &state.authorization
        && request.header("authorization") != Some(expected)
    {
        return error(401, "security_exception", "missing authentication credentials");
    }
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    if let Err(refused) = validate::content_type(request, body) {
        return refused;
    }
    let parameters: Vec<(&str, &str)> =
        request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    let indexes = &mut state.indexes;
    let result = match (request.method().as_str(), &*path) {
        ("GET", ["_cluster", "health"]) => Ok((200, json!({ "cluster_name": "fake", "status": "green" }))),
        ("HEAD", ["_alias", alias]) => Ok((if indexes.has_alias(alias) { 200 } else { 404 }, Value::Null)),
        ("HEAD", [name]) => Ok((if indexes.find(name).is_ok() { 200 } else { 404 }, Value::Null)),
        ("PUT", [name]) => indexes.create(name, body),
        ("DELETE", [name]) => indexes.delete(name),
        ("PUT", [name, "_alias", alias]) => indexes.put_alias(name, alias),
        ("DELETE", [name, "_alias", alias]) => indexes.delete_alias(name, alias),
        ("POST", [name, "_refresh"]) => indexes.find(name).map(|_| (200, json!({}))),
        ("POST", [name, "_search"]) => indexes.find(name).and_then(|index| index.search(&parameters, body)),
        ("POST", [name, "_bulk"]) => {
            let half = match std::mem::replace(&mut state.mode, FakeMode::Healthy) {
                FakeMode::RejectingHalfOfBulk(status) => Some(status),
                _ => None,
            };
            bulk::run(indexes, name, body, &parameters, half)
        }
        ("PUT", [name, "_doc", id]) => indexes.put(name, id, &parameters, body),
        ("DELETE", [name, "_doc", id]) => indexes.remove(name, id, &parameters),
        (method, _) => Err(text_error(400, format!("no handler found for uri {path:?} and method [{method}]"))),
    };
    result.unwrap_or_else(|refused| refused)
}
