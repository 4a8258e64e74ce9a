//! SIGTERM of the API: it responds to every accepted request, long-pollers get the current state, and every 202 holds.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::PgPool;
use tokio::{io::AsyncWriteExt, task::JoinSet};

use super::{
    QUICK, SOON,
    clients::{Clients, History, post_webhook, webhook},
    settlements::{assert_consistent, log_changes, wait_until_settled},
};
use crate::harness::{
    database, eventually,
    http::{connect, read_response},
    process::{Api, http_client, start_worker},
};

#[tokio::test]
async fn a_stopping_api_responds_to_every_accepted_request() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    let mut api = Api::start(&database.url, &QUICK).await;

    // The lock keeps all posts in progress. For the first two posts the test sees the waiting writers.
    let mut gate = pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE transactions IN EXCLUSIVE MODE").execute(&mut *gate).await.unwrap();
    let (http, mut posts) = (http_client(), JoinSet::new());
    for number in 0..20 {
        let (http, url, id) = (http.clone(), api.url.clone(), format!("txn_{number}"));
        posts.spawn(async move { (number, post_webhook(&http, &url, &webhook(&id)).await) });
        if number < 2 {
            eventually("a writer waits", SOON, async || waiting_writers(&pool).await == number + 1).await;
        }
    }
    // The other posts were sent before this request, which uses another connection.
    assert_eq!(http_client().get(format!("{}/livez", api.url)).send().await.unwrap().status(), 200);
    api.process.signal(Signal::SIGTERM);
    api.process.wait_for_line("draining").await;
    gate.commit().await.unwrap();

    let mut history = History::default();
    while let Some(post) = posts.join_next().await {
        match post.unwrap() {
            (number, Ok(response)) => {
                assert_eq!(response.status(), 202);
                history.acknowledge(&format!("txn_{number}"));
            }
            // A request that was not yet read at the signal may be refused; nothing was promised.
            (number, Err(error)) => assert!(number >= 2, "a request in progress got no response: {error}"),
        }
    }
    assert_eq!(api.process.wait_for_exit(SOON).await.code(), Some(0));
    let _worker = start_worker(&database.url, &QUICK).await;
    wait_until_settled(&pool, SOON).await;
    assert_consistent(&pool, &history).await;
    println!("SIGTERM with 20 posts in progress: {} got 202, all of them are recorded", history.acknowledged.len());
}

async fn waiting_writers(pool: &PgPool) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'millrace api' AND wait_event_type = 'Lock'";
    sqlx::query_scalar(waiting).fetch_one(pool).await.expect("a count")
}

#[tokio::test]
async fn stopping_one_api_under_load_loses_nothing() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    let mut worker = start_worker(&database.url, &QUICK).await;
    let mut stopped = Api::start(&database.url, &QUICK).await;
    let mut other = Api::start(&database.url, &QUICK).await;
    let clients = Clients::start(&[&stopped.url], 16);
    eventually("webhooks are acknowledged", SOON, async || clients.acknowledged() > 100).await;
    super::random_delay(0..100).await;
    let begun = Instant::now();
    stopped.process.signal(Signal::SIGTERM);
    assert_eq!(stopped.process.wait_for_exit(SOON).await.code(), Some(0));
    let took = begun.elapsed();
    clients.redirect(&other.url);
    let before = clients.acknowledged();
    eventually("the other API acknowledges webhooks", SOON, async || clients.acknowledged() > before + 50).await;
    let history = clients.finish().await;
    wait_until_settled(&pool, SOON).await;
    let settled = assert_consistent(&pool, &history).await;
    assert!(worker.is_running() && other.process.is_running());
    println!(
        "SIGTERM of an API under load: exit 0 after {took:.2?}; {} acknowledged, {} refused and repeated; {settled:?}",
        history.acknowledged.len(),
        history.without_response,
    );
}

#[tokio::test]
async fn a_long_poller_gets_the_current_state_when_the_api_stops() {
    let database = database::fresh().await;
    let mut api = Api::start(&database.url, &[("PROCESSING_DELAY_SECONDS", "3600")]).await;
    let http = http_client();
    assert_eq!(post_webhook(&http, &api.url, &webhook("txn_1")).await.unwrap().status(), 202);
    let pool = database.pool().await;
    let request = b"GET /v1/transactions/txn_1?wait=60 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut pollers = JoinSet::new();
    let before = last_settlement_query(&pool).await;
    for _ in 0..10 {
        let mut stream = connect(&api.url).await;
        stream.write_all(request).await.expect("a request");
        pollers.spawn(read_response(stream));
    }
    // Connections are accepted in their order, so those of all pollers are accepted, and their requests have arrived.
    assert_eq!(http_client().get(format!("{}/livez", api.url)).send().await.unwrap().status(), 200);
    // While requests wait, the process queries their transactions every second.
    eventually("a request waits", SOON, async || last_settlement_query(&pool).await != before).await;

    let begun = Instant::now();
    api.process.signal(Signal::SIGTERM);
    while let Some(response) = pollers.join_next().await {
        let response = response.unwrap();
        assert_eq!((response.status, &response.json()["status"]), (200, &Value::from("PROCESSING")), "{response:?}");
    }
    let took = begun.elapsed();
    // Far less than their wait, and than the time that open requests have. The limit is for a busy machine.
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(api.process.wait_for_exit(SOON).await.code(), Some(0));
    println!(
        "SIGTERM with 10 long-pollers of 60 s: all got a response after {took:.2?}, exit 0 after {:.2?}",
        begun.elapsed()
    );
}

/// The time of the API's last query for settled transactions; `None` before the first.
async fn last_settlement_query(pool: &PgPool) -> Option<String> {
    let query = "SELECT max(query_start)::text FROM pg_stat_activity
                WHERE datname = current_database() AND query LIKE 'SELECT id FROM transactions%status <>%'";
    sqlx::query_scalar(query).fetch_one(pool).await.expect("a result")
}
