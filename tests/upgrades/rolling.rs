//! Rolling upgrades: processes of one release keep running while the schema becomes that of the next release.

use std::time::Duration;

use serde_json::json;

use super::execute;
use crate::harness::{
    database,
    http::send,
    process::{Api, Process, http_client, start_worker},
};

const SOON: Duration = Duration::from_secs(20);
/// The migration of a next release: it only adds, and records itself in the table of applied migrations.
const NEXT_RELEASE: &str = "
    ALTER TABLE transactions ADD COLUMN note text;
    CREATE TABLE notes (id bigint PRIMARY KEY);
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
    VALUES (20991231000000, 'add notes', true, '', 0)";

#[tokio::test]
async fn running_processes_keep_working_with_a_newer_schema() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let quick = [("PROCESSING_DELAY_SECONDS", "0")];
    let api = Api::start(&database.url, &quick).await;
    let _worker = start_worker(&database.url, &quick).await;
    let client = http_client();
    api.wait_until_ready().await;

    execute(&pool, NEXT_RELEASE).await;
    // Otherwise the load balancer would have no ready process until the new release starts.
    api.wait_until_ready().await;
    let webhook = json!({
        "transaction_id": "after", "source_account": "a", "destination_account": "b", "amount": 1, "currency": "INR",
    });
    let sent = send(client.post(format!("{}/v1/webhooks/transactions", api.url)).json(&webhook)).await;
    assert_eq!(sent.status, 202, "{sent:?}");
    let settled = send(client.get(format!("{}/v1/transactions/after?wait=20", api.url))).await;
    assert_eq!(settled.json()["status"], "PROCESSED", "{settled:?}");

    // A process of the old release that starts now refuses the newer schema.
    for command in ["api", "worker"] {
        let mut late = Process::start(&[command], &[("DATABASE_URL", &database.url), ("PORT", "0")]);
        assert_eq!(late.wait_for_exit(SOON).await.code(), Some(1), "{command}");
        assert!(late.log().contains("newer than this program"), "{command}: {}", late.log());
    }

    // A missing migration makes a running process unready.
    execute(&pool, "DELETE FROM _sqlx_migrations WHERE version = (SELECT min(version) FROM _sqlx_migrations)").await;
    assert_eq!(send(client.get(format!("{}/readyz", api.url))).await.status, 503);
}
