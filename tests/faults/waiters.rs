//! Hundreds of long-pollers on one API process: all are answered, and the database does not notice them.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use super::{QUICK, SOON, clients::send_all};
use crate::harness::{
    database,
    http::send,
    process::{Api, http_client, start_worker},
};

const WAITERS: usize = 500;
const TRANSACTIONS: usize = 50;
/// What `App` allows one process; the listener comes to it.
const SESSIONS: i64 = 12;

#[tokio::test]
async fn long_polls_are_answered_and_cost_no_sessions() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let api = Api::start(&database.url, &QUICK).await;
    let http = http_client();
    let ids: Vec<String> = (0..TRANSACTIONS).map(|number| format!("txn_{number}")).collect();
    send_all(&http, &api.url, &ids).await;

    let mut waiters = JoinSet::new();
    for waiter in 0..WAITERS {
        let id = &ids[waiter % TRANSACTIONS];
        let request = http.get(format!("{}/v1/transactions/{id}?wait=30", api.url));
        waiters.spawn(async move { send(request).await });
    }
    // Nothing settles before there is a worker: until then all of them wait.
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
    assert!(waiters.try_join_next().is_none(), "somebody was answered before anything had settled");
    let begun = Instant::now();
    let mut worker = start_worker(&database.url, &QUICK).await;
    let mut answered = 0;
    while answered < WAITERS {
        assert!(begun.elapsed() < SOON, "{answered} of {WAITERS} answered");
        // The worker's listener is one more from now on.
        sample().await;
        while let Some(answer) = waiters.try_join_next() {
            let answer = answer.expect("a waiter");
            assert_eq!((answer.status, &answer.json()["status"]), (200, &Value::from("PROCESSED")), "{answer:?}");
            answered += 1;
        }
    }
    let took = begun.elapsed();
    assert!(most <= SESSIONS + 2, "{most} sessions");
    assert!(worker.is_running());
    println!(
        "{WAITERS} long-polls answered {took:.2?} after the worker's start; at most {most} sessions in {samples} looks"
    );
}
