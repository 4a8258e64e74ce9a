//! Fills a database with realistic data: through the API and a worker, and with SQL only for rare states.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;

use super::{execute, schema::contents, value};
use crate::harness::{
    database::TestDatabase,
    eventually,
    fake_providers::FakeProviders,
    http::send,
    process::{Api, http_client, start_worker},
};

/// Dozens of jobs, among them fetches of prices that wait for the provider's rate limit.
const SOON: Duration = Duration::from_secs(60);

/// Fills every table of a migrated database. It fails if a table stays empty, so that new features are filled too.
pub(super) async fn fill(database: &TestDatabase, pool: &PgPool) {
    fill_through_api(database, pool).await;
    fill_rare_states(pool).await;
    let rows = contents(pool).await;
    let empty: Vec<&str> = rows.iter().filter(|(_, found)| found.0 == 0).map(|((table, _), _)| &**table).collect();
    assert!(empty.is_empty(), "fill these tables in tests/upgrades/fill.rs: {empty:?}");
}

async fn fill_through_api(database: &TestDatabase, pool: &PgPool) {
    let exchange = FakeProviders::start().await;
    let sources = exchange.variables();
    let mut quick = vec![("PROCESSING_DELAY_SECONDS", "0"), ("CRYPTO_PROVIDERS", "coingecko,coinbase")];
    quick.extend(sources.iter().map(|(name, url)| (*name, url.as_str())));
    let (api, worker) = (Api::start(&database.url, &quick).await, start_worker(&database.url, &quick).await);
    let slow = Api::start(&database.url, &[("PROCESSING_DELAY_SECONDS", "600")]).await;
    let client = http_client();
    let post = async |url: String, headers: &[(&str, &str)], body: Value| -> Value {
        let request =
            headers.iter().fold(client.post(&url).json(&body), |request, (name, text)| request.header(*name, *text));
        let response = send(request).await;
        assert!((200..300).contains(&response.status), "{url}: {response:?}");
        response.json()
    };
    let webhook = |id: String, amount: u32| json!({"transaction_id": id, "source_account": "a", "destination_account": "b", "amount": amount, "currency": "INR"});
    for n in 0..20 {
        post(format!("{}/v1/webhooks/transactions", api.url), &[], webhook(format!("done-{n}"), 1)).await;
        post(format!("{}/v1/webhooks/transactions", slow.url), &[], webhook(format!("waits-{n}"), 1)).await;
        // A repeated payload is counted, and a conflicting one is stored for the operator.
        post(format!("{}/v1/webhooks/transactions", api.url), &[], webhook(format!("done-{n}"), 1)).await;
        post(format!("{}/v1/webhooks/transactions", api.url), &[], webhook(format!("done-{n}"), 2)).await;
    }
    let ada = json!({"email": "Ada@example.com", "password": "correct horse", "full_name": "Ada"});
    post(format!("{}/api/v1/users/register", api.url), &[], ada.clone()).await;
    let token = post(format!("{}/api/v1/users/login", api.url), &[], ada).await;
    let bearer = format!("Bearer {}", token["access_token"].as_str().expect("a token"));
    for n in 0..5 {
        let item = json!({"title": format!("Copper kettle {n}"), "description": "For two", "price_cents": 4900 + n});
        post(format!("{}/api/v1/items", api.url), &[("Authorization", &bearer)], item).await;
        let assets = json!([{"id": "id-1", "interest_rate": 100}, {"id": "id-2", "interest_rate": n}]);
        let key = format!("key-{n}");
        let headers = [("api_key", "your-secret-api-key-here"), ("Idempotency-Key", &*key)];
        post(format!("{}/asset", api.url), &headers, assets).await;
        let probe = json!({"x": 5, "y": n, "direction": "NORTH"});
        post(format!("{}/api/v1/setup", api.url), &[], probe).await;
    }
    let admin = [("X-API-Key", "your-admin-api-key-here")];
    post(format!("{}/admin/prices/fetch", api.url), &admin, json!({})).await;
    let price = format!("{}/simple_price?assets=bitcoin&currency=usd", api.url);
    assert_eq!(send(client.get(price).header("X-API-Key", "your-admin-api-key-here")).await.status, 200);
    // The processes fill the last six tables on their own: their rows may come after the last job.
    let done = "(SELECT count(*) = 20 FROM transactions WHERE status = 'PROCESSED')
                AND (SELECT count(*) = 5 FROM item_documents)
                AND EXISTS (SELECT FROM queue_minutes) AND EXISTS (SELECT FROM queue_depths)
                AND EXISTS (SELECT FROM worker_releases) AND EXISTS (SELECT FROM schedules)
                AND EXISTS (SELECT FROM webhook_replays) AND EXISTS (SELECT FROM spot_prices)
                AND NOT EXISTS (SELECT FROM apalis.jobs WHERE status = 'Running' OR (status = 'Pending' AND run_at < now()))";
    eventually("all due jobs are done", SOON, async || value(pool, done).await == "true").await;
    drop((api, slow, worker));
}

/// Adds states that arise only from problems: failures, dead letters, operators' actions, an unconfirmed chain transaction.
async fn fill_rare_states(pool: &PgPool) {
    execute(
        pool,
        "UPDATE transactions SET status = 'FAILED', error = 'refused', processed_at = now()
         WHERE transaction_id IN ('waits-0', 'waits-1');
         UPDATE apalis.jobs SET status = 'Killed', done_at = now(), last_result = '{\"Err\": \"refused\"}',
                errors = '[{\"error\": \"refused\"}]', failures = 3
         WHERE id IN (SELECT id::text FROM transactions WHERE transaction_id IN ('waits-0', 'waits-1'))
            OR id IN (SELECT id FROM apalis.jobs WHERE status = 'Pending' ORDER BY id LIMIT 2);
         UPDATE apalis.jobs SET status = 'Running', lock_by = (SELECT min(id) FROM apalis.workers), lock_at = now(), attempts = 1
         WHERE id = (SELECT max(id) FROM apalis.jobs WHERE status = 'Pending');
         -- Two jobs with one key, of which one is done by a worker that no longer exists.
         INSERT INTO apalis.jobs (id, job_type, job, status, priority, idempotency_key, lock_by, fair_key)
         VALUES ('by-hand-1', 'q', '', 'Done', 1, 'same', 'deleted', 7), ('by-hand-2', 'q', '', 'Pending', -1, 'same', NULL, 7);
         INSERT INTO cancellations (job_id) VALUES ('by-hand-2');
         INSERT INTO schedule_fires (schedule, fire_time, kind) SELECT name, now(), 'by_hand' FROM schedules;
         INSERT INTO queues (name, paused_at, paused_by, reason) VALUES ('q', now(), 'ada', 'for a look');
         INSERT INTO operator_actions (actor, via, action, target, reason, count) VALUES ('ada', 'cli', 'pause', 'q', 'for a look', 1);
         INSERT INTO replays (id, queue, rate, canary, stop_if_dead, max_jobs) VALUES (uuid_v7(), 'q', 20, 10, 0.2, 100);
         INSERT INTO replays (id, queue, rate, canary, stop_if_dead, max_jobs, state, skips)
         VALUES (uuid_v7(), 'q', 20, 10, 0.2, 100, 'watching', '[{\"job\": \"by-hand-1\", \"cause\": \"refused\"}]');
         INSERT INTO queue_hours (queue, hour, enqueued, started, done, retried, snoozed, dead, cancelled, rescued, fenced, run_us,
                                  waits, runs)
         VALUES ('q', now(), 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, '{1}', '{1}');
         UPDATE apalis.jobs SET replays = 2, events = '[{\"at\": \"2026-11-28T12:00:00Z\", \"event\": \"given_back\"}]' WHERE id = 'by-hand-1';
         INSERT INTO callbacks (id, transaction_id, destination, kind, attempts, gave_up_at, last_status, last_error)
         SELECT uuid_v7(), id, 'acme', 'transaction.failed', 1, now(), 410, 'callback returned 410 Gone' FROM transactions
         WHERE transaction_id = 'waits-0';
         INSERT INTO callback_destinations (name, failing_since, disabled_at, disabled_because)
         VALUES ('acme', now(), now(), '410 Gone');
         INSERT INTO replayed_jobs (replay, number, job) SELECT id, 1, 'by-hand-1' FROM replays;
         INSERT INTO chain_sends (rate_id, number, contract, sender, nonce, hash, raw, max_fee, priority)
         SELECT id, 1, '0x1', '0x2', 7, '\\x01', '\\x02', '3', '4' FROM interest_rates LIMIT 1",
    )
    .await;
}
