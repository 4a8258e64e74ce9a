//! The system under test of most feature tests: one API process over its own database.
//!
//! A test module adds its feature's requests in an `impl System` block.

use reqwest::{Body, Client, Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::{
    database::{self, TestDatabase},
    http::send,
    process::{self, Api},
};

pub(crate) const WEBHOOKS: &str = "/v1/webhooks/transactions";

/// An API process, a client for it, and its database.
pub(crate) struct System {
    pub api: Api,
    pub client: Client,
    pub database: TestDatabase,
}

impl System {
    /// Starts an API process with these variables over a fresh database.
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        let database = database::fresh().await;
        Self { api: Api::start(&database.url, variables).await, client: process::http_client(), database }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.api.url))
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// A request that posts this body as a webhook.
    pub(crate) fn post_webhook(&self, body: impl Into<Body>) -> RequestBuilder {
        self.request(Method::POST, WEBHOOKS).header("content-type", "application/json").body(body)
    }

    /// Sends a webhook, which must be accepted. Returns the transaction.
    pub(crate) async fn send_webhook(&self, id: &str) -> Value {
        let response = send(self.post_webhook(webhook(id).to_string())).await;
        assert_eq!(response.status, 202, "{id}: {response:?}");
        response.json()
    }

    /// The single number that a query returns.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        let query = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
        query.fetch_one(&self.database.pool().await).await.expect("a number")
    }

    /// The value of one metric series.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let text = send(self.get("/metrics")).await.text;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{series}:\n{text}")).parse().expect("a whole number")
    }
}

/// The webhook of the contract's example, with this id.
pub(crate) fn webhook(id: &str) -> Value {
    json!({
        "transaction_id": id, "source_account": "acc_user_1", "destination_account": "acc_merchant_1",
        "amount": 1500, "currency": "INR",
    })
}
