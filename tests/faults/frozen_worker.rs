//! A worker that stands still beyond its lease, or only its heartbeats do: others take over, and what it brings
//! afterwards counts for nothing.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use reqwest::Client;
use serde_json::Value;

use super::{
    SOON,
    clients::{send, send_all, webhook},
    processor::Processor,
    settlements::{agree, all_settled, log_changes},
    with_processor,
};
use crate::harness::{
    database, eventually,
    process::{Api, Process, http_client, start_worker},
};

const RUNS: usize = 40;

#[tokio::test]
async fn a_worker_frozen_beyond_its_lease_changes_nothing_when_it_goes_on() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    // Longer than the lease and the rescue: the answers come when the jobs are long settled by the other worker.
    let processor = Processor::start(Duration::from_secs(6)).await;
    let variables = [&with_processor(&processor.url)[..], &[("WORKER_HEALTH_PORT", "0")]].concat();
    let api = Api::start(&database.url, &variables).await;
    let mut frozen = start_worker(&database.url, &variables).await;

    let http = http_client();
    let ids: Vec<String> = (0..RUNS).map(|number| format!("txn_{number}")).collect();
    let history = send_all(&http, &api.url, &ids).await;
    eventually("the first worker runs them all", SOON, async || processor.calls() == RUNS).await;
    frozen.signal(Signal::SIGSTOP);
    processor.answer_after(Duration::ZERO);
    let begun = Instant::now();
    let mut other = start_worker(&database.url, &variables).await;
    all_settled(&pool, SOON).await;
    let taken_over = begun.elapsed();
    eventually("the late answers are there", SOON, async || processor.answered() == 2 * RUNS).await;
    frozen.signal(Signal::SIGCONT);

    eventually("late results are dropped and counted", SOON, async || fenced(&http, &mut frozen).await == RUNS).await;
    assert_eq!(frozen.log().matches("result dropped").count(), RUNS);
    assert_eq!(fenced(&http, &mut other).await, 0);
    let settled = agree(&pool, &history).await;
    assert_eq!((settled.transactions, settled.crashes), (RUNS, RUNS as i64));
    // It works again, by a lease that it renewed.
    other.signal(Signal::SIGTERM);
    assert!(other.wait_for_exit(SOON).await.success());
    assert_eq!(send(&http, &api.url, &webhook("txn_after")).await.unwrap().status(), 202);
    all_settled(&pool, SOON).await;
    assert!(frozen.is_running());
    println!("frozen with {RUNS} runs: taken over within {taken_over:.1?}, {RUNS} late results dropped; {settled:?}");
}

/// Whoever locks its row stops its heartbeats, and nothing else: it runs its jobs to their ends.
#[tokio::test]
async fn a_worker_whose_heartbeats_alone_are_late_changes_nothing_any_more() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    let processor = Processor::start(Duration::from_secs(6)).await;
    let variables = [&with_processor(&processor.url)[..], &[("WORKER_HEALTH_PORT", "0")]].concat();
    let api = Api::start(&database.url, &variables).await;
    let mut late = start_worker(&database.url, &variables).await;

    let http = http_client();
    let ids: Vec<String> = (0..RUNS).map(|number| format!("txn_{number}")).collect();
    let history = send_all(&http, &api.url, &ids).await;
    eventually("the first worker runs them all", SOON, async || processor.calls() == RUNS).await;
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM apalis.workers FOR UPDATE").execute(&mut *lock).await.unwrap();
    processor.answer_after(Duration::ZERO);
    let begun = Instant::now();
    let mut other = start_worker(&database.url, &variables).await;
    all_settled(&pool, SOON).await;
    let taken_over = begun.elapsed();

    eventually("late results are dropped and counted", SOON, async || fenced(&http, &mut late).await == RUNS).await;
    assert_eq!(processor.calls(), 2 * RUNS, "each ran once here and once there");
    let locked = begun.elapsed();
    lock.rollback().await.unwrap();
    let settled = agree(&pool, &history).await;
    assert_eq!((settled.transactions, settled.crashes), (RUNS, RUNS as i64));
    assert_eq!(fenced(&http, &mut other).await, 0);
    // It works again, by a lease that it renewed.
    other.signal(Signal::SIGTERM);
    assert!(other.wait_for_exit(SOON).await.success());
    assert_eq!(send(&http, &api.url, &webhook("txn_after")).await.unwrap().status(), 202);
    all_settled(&pool, SOON).await;
    assert!(late.is_running());
    println!(
        "heartbeats alone late for {locked:.1?} with {RUNS} runs: taken over within {taken_over:.1?}, {RUNS} late results \
         dropped; {settled:?}"
    );
}

/// `millrace_jobs_fenced_total` of a worker.
async fn fenced(http: &Client, worker: &mut Process) -> usize {
    let line: Value = serde_json::from_str(&worker.wait_for_line("health and metrics").await).expect("a JSON line");
    let url = format!("http://{}/metrics", line["address"].as_str().expect("an address"));
    let metrics = http.get(url).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.starts_with("millrace_jobs_fenced_total{")).expect("the counter");
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a count")
}
