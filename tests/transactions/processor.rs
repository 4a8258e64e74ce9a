//! A processor for tests: a small HTTP service that answers by the id of the transaction, and remembers who asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use poem::{
    Endpoint, EndpointExt, Request, Response, Server, endpoint::make, http::HeaderMap, http::StatusCode,
    listener::TcpAcceptor,
};
use serde_json::Value;

/// One call that it got.
#[derive(Debug, Clone)]
pub struct Call {
    pub at: Instant,
    pub headers: HeaderMap,
    pub body: String,
}

/// What it answers to the n-th call (from 1) about a transaction: status, `Retry-After`, and how long it takes.
pub type Script = fn(id: &str, call: usize) -> (u16, Option<&'static str>, Duration);

/// The service; it ends with the test.
pub struct Processor {
    pub url: String,
    calls: Arc<Mutex<HashMap<String, Vec<Call>>>>,
}

impl Processor {
    pub async fn start(script: Script) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/charge?key=hidden", listener.local_addr().unwrap());
        let calls = Arc::<Mutex<HashMap<String, Vec<Call>>>>::default();
        let endpoint = answering(script, calls.clone());
        tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).unwrap()).run(endpoint));
        Self { url, calls }
    }

    /// The calls about a transaction so far.
    pub fn calls(&self, id: &str) -> Vec<Call> {
        self.calls.lock().unwrap().get(id).cloned().unwrap_or_default()
    }
}

/// What it says about a transaction: why, and more than anybody should see.
pub fn body_of(id: &str) -> String {
    format!("{{\"reason\": \"{id} is not wanted\",\n\"url\": \"/charge?key=hidden\"}}{}", " ".repeat(1000))
}

fn answering(script: Script, calls: Arc<Mutex<HashMap<String, Vec<Call>>>>) -> impl Endpoint + 'static {
    make(move |mut request: Request| {
        let calls = calls.clone();
        async move {
            let at = Instant::now();
            assert_eq!(request.method(), "POST");
            let headers = request.headers().clone();
            let body = request.take_body().into_string().await.unwrap();
            let id = serde_json::from_str::<Value>(&body).unwrap()["transaction_id"].as_str().unwrap().to_owned();
            let number = {
                let mut calls = calls.lock().unwrap();
                let calls = calls.entry(id.clone()).or_default();
                calls.push(Call { at, headers, body });
                calls.len()
            };
            let (status, retry_after, takes) = script(&id, number);
            tokio::time::sleep(takes).await;
            let answer = Response::builder().status(StatusCode::from_u16(status).unwrap());
            let answer = retry_after.into_iter().fold(answer, |answer, after| answer.header("Retry-After", after));
            // A status without a body must have none.
            if status == 204 { answer.finish() } else { answer.body(body_of(&id)) }
        }
    })
    .map_to_response()
}
