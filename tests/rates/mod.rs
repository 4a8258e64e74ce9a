//! Interest rates over HTTP: stored in PostgreSQL, and in a contract on a real Ethereum node.

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

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{
    database::TestDatabase,
    http::{HttpResponse, send},
    process::Api,
    system::System,
};

const KEY: &str = "the key of the tests";
const SAVED: &str = "Average interest rate calculated and saved successfully";

/// Starts an API process that accepts [`KEY`].
async fn start(variables: &[(&str, &str)]) -> System {
    System::start(&[&[("API_KEY", KEY)], variables].concat()).await
}

impl System {
    fn request_with_key(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).header("api_key", KEY)
    }

    async fn get_with_key(&self, path: &str) -> HttpResponse {
        send(self.request_with_key(Method::GET, path)).await
    }

    async fn submit(&self, assets: Value) -> HttpResponse {
        send(self.request_with_key(Method::POST, "/asset").json(&assets)).await
    }

    async fn submit_idempotent(&self, key: &str, assets: Value) -> HttpResponse {
        send(self.request_with_key(Method::POST, "/asset").header("idempotency-key", key).json(&assets)).await
    }

    /// The newest rate.
    async fn current_rate(&self) -> String {
        let response = self.get_with_key("/interest_rate").await;
        assert_eq!(response.status, 200, "{response:?}");
        response.json()["interest_rate"].as_str().expect("a text").to_owned()
    }

    /// All rates, newest first, page by page.
    async fn history(&self, limit: usize) -> Vec<String> {
        let (mut rates, mut path) = (Vec::new(), format!("/interest_rate/history?limit={limit}"));
        loop {
            let page = self.get_with_key(&path).await;
            assert_eq!(page.status, 200, "{page:?}");
            let rates_on_page = page.json().as_array().expect("a list").clone();
            assert!(rates_on_page.len() <= limit, "{page:?}");
            rates.extend(
                rates_on_page.iter().map(|reading| reading["interest_rate"].as_str().expect("a text").to_owned()),
            );
            match page.header("link").strip_prefix('<').and_then(|link| link.split_once(">; rel=\"next\"")) {
                Some((next, _)) => path = next.to_owned(),
                None => return rates,
            }
        }
    }
}

/// Starts another API process over this database.
async fn start_api(database: &TestDatabase, variables: &[(&str, &str)]) -> Api {
    Api::start(&database.url, &[&[("API_KEY", KEY)], variables].concat()).await
}

/// The body of a submission with one asset.
fn one_asset(rate: impl Into<Value>) -> Value {
    json!([{"id": "id-1", "interest_rate": rate.into()}])
}
