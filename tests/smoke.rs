//! Smoke test: one webhook through the real processes, from its 202 to its settlement.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    database,
    process::{Api, http_client, start_worker},
};

#[tokio::test]
async fn a_webhook_is_acknowledged_and_processed() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[("PROCESSING_DELAY_SECONDS", "0.2")]).await;
    let _worker = start_worker(&database.url, &[]).await;
    let webhook = json!({
        "transaction_id": "txn_abc123", "source_account": "acc_user_1", "destination_account": "acc_merchant_1",
        "amount": 1500, "currency": "INR",
    });
    let response =
        http_client().post(format!("{}/v1/webhooks/transactions", api.url)).json(&webhook).send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["location"], "/v1/transactions/txn_abc123");
    let seen: Value = response.json().await.unwrap();
    assert_eq!(seen["status"], "PROCESSING");

    let url = format!("{}/v1/transactions/txn_abc123?wait=30", api.url);
    let settled: Value =
        http_client().get(url).timeout(Duration::from_secs(40)).send().await.unwrap().json().await.unwrap();
    assert_eq!(settled["status"], "PROCESSED", "{settled}");
    assert_eq!(settled["created_at"], seen["created_at"]);
}

#[tokio::test]
async fn both_processes_stop_without_an_error() {
    let database = database::fresh().await;
    let mut api = Api::start(&database.url, &[]).await;
    let mut worker = start_worker(&database.url, &[]).await;
    for process in [&mut api.process, &mut worker] {
        process.signal(Signal::SIGTERM);
    }
    // No request and no job is in progress, so that both end at once.
    for process in [&mut api.process, &mut worker] {
        let status = process.wait_for_exit(Duration::from_secs(10)).await;
        assert!(status.success(), "{status}\n{}", process.log());
    }
}
