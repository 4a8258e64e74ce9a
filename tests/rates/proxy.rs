//! A fault-injecting JSON-RPC proxy in front of a node: forwards calls, returns errors, or loses responses.

use std::sync::{Arc, Mutex};

use poem::{
    Endpoint, EndpointExt as _, Request, Response, Server, endpoint::make, http::StatusCode, listener::TcpAcceptor,
};
use serde_json::{Value, json};

/// A fault that the proxy injects into the calls of one method.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// The call gets this error and does not reach the node.
    ReturnError { code: i64, message: &'static str },
    /// The call gets this result and does not reach the node.
    ReturnResult(&'static str),
    /// The call gets the result `null` and does not reach the node.
    ReturnNull,
    /// The call reaches the node, and its response is lost.
    LoseResponse,
    /// The result loses this field.
    RemoveField { field: &'static str },
}

/// The faults to inject: a method, its fault, and how many more of its calls get it.
type Faults = Arc<Mutex<Vec<(&'static str, Fault, usize)>>>;

/// The proxy. It ends with the test.
pub(super) struct Proxy {
    pub url: String,
    faults: Faults,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(super) async fn start(node: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (faults, calls) = (Faults::default(), Arc::<Mutex<Vec<String>>>::default());
        let endpoint = build_endpoint(node.to_owned(), faults.clone(), calls.clone());
        tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).unwrap()).run(endpoint.boxed()));
        Self { url, faults, calls }
    }

    /// Injects a fault into the next `times` calls of a method.
    pub(super) fn inject(&self, method: &'static str, fault: Fault, times: usize) {
        self.faults.lock().unwrap().push((method, fault, times));
    }

    /// Forwards all calls again.
    pub(super) fn clear_faults(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// How often a method was called.
    pub(super) fn count_calls(&self, method: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|called| *called == method).count()
    }
}

fn build_endpoint(node: String, faults: Faults, calls: Arc<Mutex<Vec<String>>>) -> impl Endpoint + 'static {
    let client = crate::harness::process::http_client();
    make(move |mut request: Request| {
        let (client, node, faults, calls) = (client.clone(), node.clone(), faults.clone(), calls.clone());
        async move {
            let call: Value = serde_json::from_str(&request.take_body().into_string().await.unwrap()).unwrap();
            let method = call["method"].as_str().unwrap().to_owned();
            calls.lock().unwrap().push(method.clone());
            let fault = faults.lock().unwrap().iter_mut().find(|(name, _, times)| *name == method && *times > 0).map(
                |(_, fault, times)| {
                    *times -= 1;
                    fault.clone()
                },
            );
            let invented = match fault {
                Some(Fault::ReturnError { code, message }) => {
                    Some(("error", json!({ "code": code, "message": message })))
                }
                Some(Fault::ReturnResult(result)) => Some(("result", json!(result))),
                Some(Fault::ReturnNull) => Some(("result", Value::Null)),
                _ => None,
            };
            if let Some((member, value)) = invented {
                return respond(StatusCode::OK, &json!({ "jsonrpc": "2.0", "id": 1, member: value }));
            }
            let Ok(forwarded) = client.post(&node).json(&call).send().await else {
                return respond(StatusCode::BAD_GATEWAY, &Value::Null);
            };
            let mut response: Value = forwarded.json().await.unwrap();
            match fault {
                Some(Fault::LoseResponse) => respond(StatusCode::BAD_GATEWAY, &Value::Null),
                Some(Fault::RemoveField { field }) => {
                    response["result"].as_object_mut().unwrap().remove(field);
                    respond(StatusCode::OK, &response)
                }
                _ => respond(StatusCode::OK, &response),
            }
        }
    })
    .map_to_response()
}

fn respond(status: StatusCode, body: &Value) -> Response {
    Response::builder().status(status).content_type("application/json").body(body.to_string())
}
