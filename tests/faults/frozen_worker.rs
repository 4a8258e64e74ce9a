//! A worker, or only its heartbeat, is frozen for longer than its lease: others take over, and its late results are
//! dropped.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use reqwest::Client;
use serde_json::Value;

use super::{
    SOON,
    clients::{post_webhook, post_webhooks, webhook},
    processor::{Processor, UNTIL_RELEASED},
    settlements::{assert_consistent, log_changes, wait_until_settled},
    with_processor,
};
use crate::harness::{
    database, eventually,
    process::{Api, Process, http_client, start_worker},
};

const RUNS: usize = 40;
/// More variables of both workers. No call of the processor times out before it is released.
const OF_BOTH: [(&str, &str); 2] = [("WORKER_HEALTH_PORT", "0"), ("PROCESSOR_TIMEOUT_SECONDS", "300")];

#[tokio::test]
async fn a_worker_frozen_beyond_its_lease_changes_nothing_when_it_continues() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    let processor = Processor::start(UNTIL_RELEASED).await;
    let variables = [&with_processor(&processor.url)[..], &OF_BOTH].concat();
    let api = Api::start(&database.url, &variables).await;
    let mut frozen = start_worker(&database.url, &variables).await;

    let http = http_client();
    let ids: Vec<String> = (0..RUNS).map(|number| format!("txn_{number}")).collect();
    let history = post_webhooks(&http, &api.url, &ids).await;
    eventually("the first worker runs them all", SOON, async || processor.calls() == RUNS).await;
    frozen.signal(Signal::SIGSTOP);
    processor.set_delay(Duration::ZERO);
    let begun = Instant::now();
    let mut other = start_worker(&database.url, &variables).await;
    wait_until_settled(&pool, SOON).await;
    let taken_over = begun.elapsed();
    // The responses to the first worker come after the other one has settled the jobs.
    processor.release();
    eventually("the late responses have arrived", SOON, async || processor.completed_calls() == 2 * RUNS).await;
    frozen.signal(Signal::SIGCONT);

    eventually("late results are dropped and counted", SOON, async || fenced_total(&http, &mut frozen).await == RUNS)
        .await;
    // Another thread writes the log, after the result is counted.
    let logged = async || frozen.log().matches("result dropped").count() == RUNS;
    eventually("each dropped result is logged", SOON, logged).await;
    assert_eq!(fenced_total(&http, &mut other).await, 0);
    let settled = assert_consistent(&pool, &history).await;
    assert_eq!((settled.transactions, settled.crashes), (RUNS, RUNS as i64));
    // The worker works again with a renewed lease.
    other.signal(Signal::SIGTERM);
    assert!(other.wait_for_exit(SOON).await.success());
    assert_eq!(post_webhook(&http, &api.url, &webhook("txn_after")).await.unwrap().status(), 202);
    wait_until_settled(&pool, SOON).await;
    assert!(frozen.is_running());
    println!("frozen with {RUNS} runs: taken over within {taken_over:.1?}, {RUNS} late results dropped; {settled:?}");
}

/// A lock on the worker's row blocks only its heartbeat; the worker runs its jobs to their ends.
#[tokio::test]
async fn a_worker_with_a_blocked_heartbeat_changes_nothing_after_its_lease() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    let processor = Processor::start(UNTIL_RELEASED).await;
    let variables = [&with_processor(&processor.url)[..], &OF_BOTH].concat();
    let api = Api::start(&database.url, &variables).await;
    let mut late = start_worker(&database.url, &variables).await;

    let http = http_client();
    let ids: Vec<String> = (0..RUNS).map(|number| format!("txn_{number}")).collect();
    let history = post_webhooks(&http, &api.url, &ids).await;
    eventually("the first worker runs them all", SOON, async || processor.calls() == RUNS).await;
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM apalis.workers FOR UPDATE").execute(&mut *lock).await.unwrap();
    processor.set_delay(Duration::ZERO);
    let begun = Instant::now();
    let mut other = start_worker(&database.url, &variables).await;
    wait_until_settled(&pool, SOON).await;
    let taken_over = begun.elapsed();

    // The results are late now, however slowly the other worker has started.
    processor.release();
    eventually("late results are dropped and counted", SOON, async || fenced_total(&http, &mut late).await == RUNS)
        .await;
    assert_eq!(processor.calls(), 2 * RUNS, "each job ran once on each worker");
    let locked = begun.elapsed();
    lock.rollback().await.unwrap();
    let settled = assert_consistent(&pool, &history).await;
    assert_eq!((settled.transactions, settled.crashes), (RUNS, RUNS as i64));
    assert_eq!(fenced_total(&http, &mut other).await, 0);
    // The worker works again with a renewed lease.
    other.signal(Signal::SIGTERM);
    assert!(other.wait_for_exit(SOON).await.success());
    assert_eq!(post_webhook(&http, &api.url, &webhook("txn_after")).await.unwrap().status(), 202);
    wait_until_settled(&pool, SOON).await;
    assert!(late.is_running());
    println!(
        "heartbeat blocked for {locked:.1?} with {RUNS} runs: taken over within {taken_over:.1?}, {RUNS} late results \
         dropped; {settled:?}"
    );
}

/// `millrace_jobs_fenced_total` of a worker.
async fn fenced_total(http: &Client, worker: &mut Process) -> usize {
    let line: Value = serde_json::from_str(&worker.wait_for_line("health and metrics").await).expect("a JSON line");
    let url = format!("http://{}/metrics", line["address"].as_str().expect("an address"));
    let metrics = http.get(url).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.starts_with("millrace_jobs_fenced_total{")).expect("the counter");
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a count")
}
