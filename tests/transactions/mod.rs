//! Transactions over HTTP with real processes: webhooks, processing, look-ups and the list.

mod batch;
mod callbacks;
mod conflicts;
mod fake_processor;
mod ids;
mod ingest;
mod limits;
mod list;
mod processing;
mod processor_errors;
mod quotas;
mod read_access;
mod retry_after;
mod settlement_cost;
mod signatures;
mod status;

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::harness::{
    http::{HttpResponse, send},
    process::{self, Process},
    system::{System, WEBHOOKS, webhook},
};

impl System {
    async fn start_worker(&self, variables: &[(&str, &str)]) -> Process {
        process::start_worker(&self.database.url, variables).await
    }

    /// Waits until the transaction is settled.
    async fn wait_until_settled(&self, id: &str) -> Value {
        let response = send(self.get(&format!("/v1/transactions/{id}?wait=30"))).await;
        assert_ne!(response.json()["status"], "PROCESSING", "{response:?}\n{}", self.api.process.log());
        response.json()
    }
}

/// The text of a webhook in which one field has this raw JSON.
fn webhook_with(id: &str, field: &str, raw: &str) -> String {
    let mut webhook = webhook(id);
    webhook[field] = json!("REPLACED");
    webhook.to_string().replace("\"REPLACED\"", raw)
}

fn time_of(value: &Value) -> OffsetDateTime {
    let text = value.as_str().unwrap_or_else(|| panic!("a time, not {value}"));
    assert!(text.ends_with('Z'), "UTC: {text}");
    OffsetDateTime::parse(text, &Rfc3339).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// How many seconds after its due time a transaction was settled. A negative number means too early.
fn seconds_late(transaction: &Value, delay: f64) -> f64 {
    (time_of(&transaction["processed_at"]) - time_of(&transaction["created_at"])).as_seconds_f64() - delay
}

fn assert_ok(response: &HttpResponse, status: u16, case: &str) {
    assert_eq!(response.status, status, "{case}: {response:?}");
}
