//! Transactions from outside: webhooks in, states out, over HTTP and between real processes.

mod conflicts;
mod explained;
mod ids;
mod ingest;
mod limits;
mod list;
mod processing;
mod processor;
mod reading;
mod retry_after;
mod settling;
mod signatures;
mod status;

use reqwest::{Body, Client, RequestBuilder};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::harness::{
    database::{self, TestDatabase},
    http::{HttpResponse, send},
    process::{self, Api, Process},
};

const WEBHOOKS: &str = "/v1/webhooks/transactions";
const JSON: (&str, &str) = ("content-type", "application/json");

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

    async fn worker(&self, variables: &[(&str, &str)]) -> Process {
        process::start_worker(&self.database.url, variables).await
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.api.url))
    }

    /// Posts this body, declared as JSON.
    fn post(&self, body: impl Into<Body>) -> RequestBuilder {
        self.client.post(format!("{}{WEBHOOKS}", self.api.url)).header(JSON.0, JSON.1).body(body)
    }

    /// Sends a webhook that must be accepted.
    async fn send(&self, id: &str) -> Value {
        let answer = send(self.post(webhook(id).to_string())).await;
        assert_eq!(answer.status, 202, "{id}: {answer:?}");
        answer.json()
    }

    /// The transaction once it is settled.
    async fn settled(&self, id: &str) -> Value {
        let answer = send(self.get(&format!("/v1/transactions/{id}?wait=30"))).await;
        assert_ne!(answer.json()["status"], "PROCESSING", "{answer:?}\n{}", self.api.process.log());
        answer.json()
    }

    /// The one number that this question is answered with.
    async fn count(&self, question: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(&self.database.pool().await).await.unwrap()
    }
}

/// The webhook of the seed, with this id.
fn webhook(id: &str) -> Value {
    json!({
        "transaction_id": id, "source_account": "acc_user_1", "destination_account": "acc_merchant_1",
        "amount": 1500, "currency": "INR",
    })
}

/// The text of a webhook in which one field has this raw JSON, whatever it is.
fn with(id: &str, field: &str, raw: &str) -> String {
    let mut webhook = webhook(id);
    webhook[field] = json!("REPLACED");
    webhook.to_string().replace("\"REPLACED\"", raw)
}

fn time_of(value: &Value) -> OffsetDateTime {
    let text = value.as_str().unwrap_or_else(|| panic!("a time, not {value}"));
    assert!(text.ends_with('Z'), "UTC: {text}");
    OffsetDateTime::parse(text, &Rfc3339).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// How long after its due time a transaction was settled; negative would be too early.
fn late(transaction: &Value, delay: f64) -> f64 {
    (time_of(&transaction["processed_at"]) - time_of(&transaction["created_at"])).as_seconds_f64() - delay
}

fn assert_ok(answer: &HttpResponse, status: u16, case: &str) {
    assert_eq!(answer.status, status, "{case}: {answer:?}");
}
