//! Interest rates from outside, over HTTP: on PostgreSQL, and on a contract of a real node.

mod access;
#[cfg(feature = "smart-contract")]
mod history;
#[cfg(feature = "smart-contract")]
mod onchain;
mod postgres;
#[cfg(feature = "smart-contract")]
mod proxy;
#[cfg(feature = "smart-contract")]
mod refusals;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{
    database::{self, TestDatabase},
    http::{HttpResponse, send},
    process::{self, Api},
};

const KEY: &str = "the key of the tests";
const SAVED: &str = "Average interest rate calculated and saved successfully";

/// An API process over a database of its own.
struct System {
    api: Api,
    client: Client,
    database: TestDatabase,
}

impl System {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let database = database::fresh().await;
        Self { api: api(&database, variables).await, client: process::http_client(), database }
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.api.url)).header("api_key", KEY)
    }

    async fn get(&self, path: &str) -> HttpResponse {
        send(self.call(Method::GET, path)).await
    }

    async fn submit(&self, assets: Value) -> HttpResponse {
        send(self.call(Method::POST, "/asset").json(&assets)).await
    }

    async fn submit_as(&self, key: &str, assets: Value) -> HttpResponse {
        send(self.call(Method::POST, "/asset").header("idempotency-key", key).json(&assets)).await
    }

    /// The newest rate.
    async fn current(&self) -> String {
        let answer = self.get("/interest_rate").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["interest_rate"].as_str().expect("a text").to_owned()
    }

    /// All rates, newest first, page by page.
    async fn history(&self, limit: usize) -> Vec<String> {
        let (mut rates, mut path) = (Vec::new(), format!("/interest_rate/history?limit={limit}"));
        loop {
            let page = self.get(&path).await;
            assert_eq!(page.status, 200, "{page:?}");
            let shown = page.json().as_array().expect("a list").clone();
            assert!(shown.len() <= limit, "{page:?}");
            rates.extend(shown.iter().map(|reading| reading["interest_rate"].as_str().expect("a text").to_owned()));
            match page.header("link").strip_prefix('<').and_then(|link| link.split_once(">; rel=\"next\"")) {
                Some((next, _)) => path = next.to_owned(),
                None => return rates,
            }
        }
    }
}

async fn api(database: &TestDatabase, variables: &[(&str, &str)]) -> Api {
    Api::start(&database.url, &[&[("API_KEY", KEY)], variables].concat()).await
}

/// A submission of one asset.
fn one(rate: impl Into<Value>) -> Value {
    json!([{"id": "id-1", "interest_rate": rate.into()}])
}
