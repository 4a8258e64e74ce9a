//! An imitation of Elasticsearch that refuses what a real one refuses, and can be told to fail.

mod index;
mod reject;

use std::sync::{Arc, Mutex, MutexGuard};

use poem::{
    Endpoint, EndpointExt, Request, Response, Server,
    endpoint::make,
    http::{Method, StatusCode},
    listener::TcpAcceptor,
};
use serde_json::{Value, json};

pub use index::Index;

/// Status and body of an answer.
pub type Answer = (u16, Value);

/// How the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeMode {
    Well,
    /// Answers everything with this status.
    Refusing(u16),
    /// Takes requests and never answers.
    Silent,
    /// Refuses every second write of a bulk with this status, once.
    HalfOfBulk(u16),
}

#[derive(Debug)]
pub struct State {
    pub mood: FakeMode,
    pub index: Option<Index>,
    /// `METHOD path?query` of everything that was asked.
    pub requests: Vec<String>,
    /// The bodies among them.
    pub sent: Vec<(String, String)>,
    /// What `Authorization` must be.
    pub authorization: Option<String>,
}

/// The server; it ends with the test.
#[derive(Clone)]
pub struct Fake {
    pub address: std::net::SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state =
            State { mood: FakeMode::Well, index: None, requests: Vec::new(), sent: Vec::new(), authorization: None };
        let state = Arc::new(Mutex::new(state));
        let endpoint = answering(state.clone());
        tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).unwrap()).run(endpoint));
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn be(&self, mood: FakeMode) {
        self.state().mood = mood;
    }

    /// How many searches it was asked for.
    pub fn searches(&self) -> usize {
        self.state().requests.iter().filter(|request| request.contains("/_search")).count()
    }
}

fn answering(state: Arc<Mutex<State>>) -> impl Endpoint + 'static {
    make(move |mut request: Request| {
        let state = state.clone();
        async move {
            let body = request.take_body().into_string().await.unwrap();
            let mood = {
                let mut state = state.lock().unwrap();
                let asked = format!("{} {}", request.method(), request.uri());
                if !body.is_empty() {
                    state.sent.push((asked.clone(), body.clone()));
                }
                state.requests.push(asked);
                state.mood
            };
            if mood == FakeMode::Silent {
                std::future::pending::<()>().await;
            }
            let (status, body) = answer(&mut state.lock().unwrap(), &request, &body);
            let text = if request.method() == Method::HEAD { String::new() } else { body.to_string() };
            let answer = Response::builder().status(StatusCode::from_u16(status).unwrap());
            answer.content_type("application/json").body(text)
        }
    })
    .map_to_response()
}

/// An error in Elasticsearch's form.
pub fn error(status: u16, kind: &str, reason: impl Into<String>) -> Answer {
    (status, json!({ "error": { "type": kind, "reason": reason.into() }, "status": status }))
}

fn answer(state: &mut State, request: &Request, body: &str) -> Answer {
    if let FakeMode::Refusing(status) = state.mood {
        return error(status, "es_rejected_execution_exception", "told to");
    }
    if let Some(expected) = &state.authorization
        && request.header("authorization") != Some(expected)
    {
        return error(401, "security_exception", "missing authentication credentials");
    }
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    if let Err(refused) = reject::content_type(request, &path, body) {
        return refused;
    }
    let parameters: Vec<(&str, &str)> =
        request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    let done = match (request.method().as_str(), &*path) {
        ("GET", ["_cluster", "health"]) => Ok((200, json!({ "cluster_name": "fake", "status": "green" }))),
        ("HEAD", [name]) => Ok((if Index::named(state, name).is_ok() { 200 } else { 404 }, Value::Null)),
        ("PUT", [name]) => Index::create(state, name, body),
        ("POST", [name, "_refresh"]) => Index::named(state, name).map(|_| (200, json!({}))),
        ("POST", [name, "_search"]) => Index::named(state, name).and_then(|index| index.search(body)),
        ("POST", [name, "_bulk"]) => {
            let half = match state.mood {
                FakeMode::HalfOfBulk(status) => Some(status),
                _ => None,
            };
            state.mood = FakeMode::Well;
            Index::named(state, name).and_then(|index| index.bulk(body, &parameters, half))
        }
        ("PUT", [name, "_doc", id]) => Index::named(state, name).and_then(|index| index.put(id, &parameters, body)),
        ("DELETE", [name, "_doc", id]) => Index::named(state, name).and_then(|index| index.delete(id, &parameters)),
        (method, _) => Err(error(405, "illegal_argument_exception", format!("{method} {path:?}"))),
    };
    done.unwrap_or_else(|refused| refused)
}
