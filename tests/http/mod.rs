//! Connections and headers, whatever the feature: what every answer has, and what no client library would send.

mod caching;
mod crowd;
mod drain;
mod framing;
mod half_close;
mod unwanted_bodies;

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    database::{self, TestDatabase},
    http::connect,
    process::{self, Api},
};

const WEBHOOKS: &str = "/v1/webhooks/transactions";
/// What takes milliseconds on a machine that does nothing else.
const SOON: Duration = Duration::from_secs(15);

/// An API process over a database of its own.
struct System {
    api: Api,
    client: Client,
    database: TestDatabase,
}

impl System {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let database = database::fresh().await;
        Self { api: Api::start(&database.url, variables).await, client: process::http_client(), database }
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.api.url))
    }

    /// How many transactions are recorded.
    async fn recorded(&self) -> i64 {
        let question = "SELECT count(*) FROM transactions";
        sqlx::query_scalar(question).fetch_one(&self.database.pool().await).await.expect("a count")
    }

    /// A connection over which these bytes have been sent.
    async fn sent(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = connect(&self.api.url).await;
        stream.write_all(bytes).await.expect("sent");
        stream
    }
}

fn webhook(id: &str) -> Value {
    json!({
        "transaction_id": id, "source_account": "acc_user_1", "destination_account": "acc_merchant_1",
        "amount": 1500, "currency": "INR",
    })
}

/// The bytes of a request that posts this webhook, with these headers more.
fn post(id: &str, headers: &str) -> String {
    let body = webhook(id).to_string();
    format!("POST {WEBHOOKS} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

/// One answer of a connection that stays open: its head, and its body by its length.
async fn one_answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        let mut more = [0; 4096];
        let length = stream.read(&mut more).await.expect("an answer");
        assert!(length > 0, "closed in the middle: {text:?}");
        bytes.extend(&more[..length]);
    }
}
