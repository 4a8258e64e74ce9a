//! A fake Elasticsearch that refuses what a real one refuses, and fails on demand.

mod index;
mod validate;

use std::sync::{Arc, Mutex, MutexGuard};

use poem::{
    Endpoint, EndpointExt, Request, Response, Server,
    endpoint::make,
    http::{Method, StatusCode},
    listener::TcpAcceptor,
};
use serde_json::{Value, json};

pub(super) use index::Index;

/// Status and body of a response.
pub(super) type FakeResponse = (u16, Value);

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
    pub index: Option<Index>,
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
        let state =
            State { mode: FakeMode::Healthy, index: None, requests: Vec::new(), sent: Vec::new(), authorization: None };
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
pub(super) fn error(status: u16, kind: &str, reason: impl Into<String>) -> FakeResponse {
    (status, json!({ "error": { "type": kind, "reason": reason.into() }, "status": status }))
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
    if let Err(refused) = validate::content_type(request, &path, body) {
        return refused;
    }
    let parameters: Vec<(&str, &str)> =
        request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    let result = match (request.method().as_str(), &*path) {
        ("GET", ["_cluster", "health"]) => Ok((200, json!({ "cluster_name": "fake", "status": "green" }))),
        ("HEAD", [name]) => Ok((if Index::find_by_name(state, name).is_ok() { 200 } else { 404 }, Value::Null)),
        ("PUT", [name]) => Index::create(state, name, body),
        ("POST", [name, "_refresh"]) => Index::find_by_name(state, name).map(|_| (200, json!({}))),
        ("POST", [name, "_search"]) => Index::find_by_name(state, name).and_then(|index| index.search(body)),
        ("POST", [name, "_bulk"]) => {
            let half = match state.mode {
                FakeMode::RejectingHalfOfBulk(status) => Some(status),
                _ => None,
            };
            state.mode = FakeMode::Healthy;
            Index::find_by_name(state, name).and_then(|index| index.bulk(body, &parameters, half))
        }
        ("PUT", [name, "_doc", id]) => {
            Index::find_by_name(state, name).and_then(|index| index.put(id, &parameters, body))
        }
        ("DELETE", [name, "_doc", id]) => {
            Index::find_by_name(state, name).and_then(|index| index.delete(id, &parameters))
        }
        (method, _) => Err(error(405, "illegal_argument_exception", format!("{method} {path:?}"))),
    };
    result.unwrap_or_else(|refused| refused)
}
