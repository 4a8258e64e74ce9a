//! Hundreds of long-pollers on one API process: all get a response, and they use no database sessions.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use super::{QUICK, SOON, clients::post_webhooks};
use crate::harness::{
    database,
    http::send,
    process::{Api, http_client, start_worker},
};

const WAITERS: usize = 500;
const TRANSACTIONS: usize = 50;
/// The limit of sessions per process in `App`, without the listener.
const SESSIONS: i64 = 12;

#[tokio::test]
async fn long_polls_get_responses_and_use_no_sessions() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let api = Api::start(&database.url, &QUICK).await;
    let http = http_client();
    let ids: Vec<String> = (0..TRANSACTIONS).map(|number| format!("txn_{number}")).collect();
    post_webhooks(&http, &api.url, &ids).await;

    let mut waiters = JoinSet::new();
    for waiter in 0..WAITERS {
        let id = &ids[waiter % TRANSACTIONS];
        let request = http.get(format!("{}/v1/transactions/{id}?wait=30", api.url));
        waiters.spawn(async move { send(request).await });
    }
    // Without a worker no transaction settles, so all long-polls wait.
    let (begun, mut most, mut samples) = (Instant::now(), 0, 0);
    let sessions = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name IN ('millrace api', 'millrace listener')";
    let mut sample = async || {
        let now: i64 = sqlx::query_scalar(sessions).fetch_one(&pool).await.expect("a count");
        most = most.max(now);
        samples += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    while begun.elapsed() < Duration::from_secs(2) {
        sample().await;
    }
    assert!(waiters.try_join_next().is_none(), "a long-poll got a response before any transaction had settled");
    let begun = Instant::now();
    let mut worker = start_worker(&database.url, &QUICK).await;
    let mut responses = 0;
    while responses < WAITERS {
        assert!(begun.elapsed() < SOON, "{responses} of {WAITERS} got a response");
        // The worker's listener adds one session.
        sample().await;
        while let Some(response) = waiters.try_join_next() {
            let response = response.expect("a waiter");
            assert_eq!((response.status, &response.json()["status"]), (200, &Value::from("PROCESSED")), "{response:?}");
            responses += 1;
        }
    }
    let took = begun.elapsed();
    assert!(most <= SESSIONS + 2, "{most} sessions");
    assert!(worker.is_running());
    println!(
        "{WAITERS} long-polls got responses {took:.2?} after the worker's start; at most {most} sessions in {samples} samples"
    );
}
