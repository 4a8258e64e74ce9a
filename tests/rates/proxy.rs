//! Between our processes and a node: passes calls on, or refuses them, or loses their answers.

use std::sync::{Arc, Mutex};

use poem::{
    Endpoint, EndpointExt as _, Request, Response, Server, endpoint::make, http::StatusCode, listener::TcpAcceptor,
};
use serde_json::{Value, json};

/// What becomes of the calls of one method.
#[derive(Debug, Clone)]
pub enum Rule {
    /// The node never sees them; this is the error that they get.
    Refuse { code: i64, message: &'static str },
    /// The node sees them, and its answer is lost on the way back.
    LoseAnswer,
    /// The node's results lack this field.
    Without { field: &'static str },
}

/// A method, what becomes of its calls, and how many more calls that is for.
type Rules = Arc<Mutex<Vec<(&'static str, Rule, usize)>>>;

/// A node as seen through a proxy; it ends with the test.
pub struct Proxy {
    pub url: String,
    rules: Rules,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub async fn start(node: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (rules, calls) = (Rules::default(), Arc::<Mutex<Vec<String>>>::default());
        let endpoint = passing_on(node.to_owned(), rules.clone(), calls.clone());
        tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).unwrap()).run(endpoint.boxed()));
        Self { url, rules, calls }
    }

    /// Applies a rule to the next `times` calls of a method.
    pub fn apply(&self, method: &'static str, rule: Rule, times: usize) {
        self.rules.lock().unwrap().push((method, rule, times));
    }

    /// Passes everything on again.
    pub fn heal(&self) {
        self.rules.lock().unwrap().clear();
    }

    /// How often a method was called.
    pub fn calls(&self, method: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|called| *called == method).count()
    }
}

fn passing_on(node: String, rules: Rules, calls: Arc<Mutex<Vec<String>>>) -> impl Endpoint + 'static {
    let client = crate::harness::process::http_client();
    make(move |mut request: Request| {
        let (client, node, rules, calls) = (client.clone(), node.clone(), rules.clone(), calls.clone());
        async move {
            let call: Value = serde_json::from_str(&request.take_body().into_string().await.unwrap()).unwrap();
            let method = call["method"].as_str().unwrap().to_owned();
            calls.lock().unwrap().push(method.clone());
            let rule = rules.lock().unwrap().iter_mut().find(|(of, _, times)| *of == method && *times > 0).map(
                |(_, rule, times)| {
                    *times -= 1;
                    rule.clone()
                },
            );
            if let Some(Rule::Refuse { code, message }) = rule {
                return answer(
                    StatusCode::OK,
                    &json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": code, "message": message } }),
                );
            }
            let Ok(passed) = client.post(&node).json(&call).send().await else {
                return answer(StatusCode::BAD_GATEWAY, &Value::Null);
            };
            let mut result: Value = passed.json().await.unwrap();
            match rule {
                Some(Rule::LoseAnswer) => answer(StatusCode::BAD_GATEWAY, &Value::Null),
                Some(Rule::Without { field }) => {
                    result["result"].as_object_mut().unwrap().remove(field);
                    answer(StatusCode::OK, &result)
                }
                _ => answer(StatusCode::OK, &result),
            }
        }
    })
    .map_to_response()
}

fn answer(status: StatusCode, body: &Value) -> Response {
    Response::builder().status(status).content_type("application/json").body(body.to_string())
}
