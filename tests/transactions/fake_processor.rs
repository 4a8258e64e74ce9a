//! A fake processor: an HTTP service that responds by the id of the transaction, and records every call.

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

/// One call that the processor received.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub at: Instant,
    pub headers: HeaderMap,
    pub body: String,
}

/// The response to the n-th call (from 1) about a transaction: status, `Retry-After`, and how long it takes.
pub(super) type Script = fn(id: &str, call: usize) -> (u16, Option<&'static str>, Duration);

/// The service. It ends with the test.
pub(super) struct FakeProcessor {
    pub url: String,
    calls: Arc<Mutex<HashMap<String, Vec<Call>>>>,
}

impl FakeProcessor {
    pub(super) async fn start(script: Script) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/charge?key=hidden", listener.local_addr().unwrap());
        let calls = Arc::<Mutex<HashMap<String, Vec<Call>>>>::default();
        let endpoint = build_endpoint(script, calls.clone());
        tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).unwrap()).run(endpoint));
        Self { url, calls }
    }

    /// The calls about a transaction so far.
    pub(super) fn calls(&self, id: &str) -> Vec<Call> {
        self.calls.lock().unwrap().get(id).cloned().unwrap_or_default()
    }
}

/// The body of a response about a transaction: a reason, a secret, and more bytes than we store.
pub(super) fn response_body(id: &str) -> String {
    format!("{{\"reason\": \"{id} is not wanted\",\n\"url\": \"/charge?key=hidden\"}}{}", " ".repeat(1000))
}

fn build_endpoint(script: Script, calls: Arc<Mutex<HashMap<String, Vec<Call>>>>) -> impl Endpoint + 'static {
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
            let response = Response::builder().status(StatusCode::from_u16(status).unwrap());
            let response =
                retry_after.into_iter().fold(response, |response, after| response.header("Retry-After", after));
            // A status without a body must have none.
            if status == 204 { response.finish() } else { response.body(response_body(&id)) }
        }
    })
    .map_to_response()
}
