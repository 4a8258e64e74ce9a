//! SIGTERM of a worker: it finishes running jobs. Jobs that cannot finish are released without using up an attempt.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sqlx::PgPool;

use super::{
    SOON,
    clients::{Clients, post_webhooks},
    processor::{Processor, UNTIL_RELEASED},
    settlements::{assert_consistent, log_changes, wait_until_settled},
    with_processor,
};
use crate::harness::{
    database, eventually,
    process::{Api, http_client, start_worker},
};

/// The time that running jobs have to finish.
const GRACE: Duration = Duration::from_secs(25);

#[tokio::test]
async fn a_stopping_worker_finishes_its_running_jobs() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    let processor = Processor::start(UNTIL_RELEASED).await;
    let variables = [&with_processor(&processor.url)[..], &[("PROCESSOR_TIMEOUT_SECONDS", "120")]].concat();
    let api = Api::start(&database.url, &variables).await;
    let mut stopped = start_worker(&database.url, &variables).await;
    let clients = Clients::start(&[&api.url], 8);
    eventually("many jobs are running", SOON, async || processor.calls() >= 50).await;

    processor.set_delay(Duration::ZERO);
    let begun = Instant::now();
    stopped.signal(Signal::SIGTERM);
    stopped.wait_for_line("draining").await;
    // The runs end after the worker has begun to stop, however slow the clients were.
    processor.release();
    let status = stopped.wait_for_exit(GRACE).await;
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(count_running(&pool).await, 0, "a stopped worker still holds jobs");
    let finished = processor.completed_calls();

    let mut next = start_worker(&database.url, &variables).await;
    let history = clients.finish().await;
    wait_until_settled(&pool, SOON).await;
    let settled = assert_consistent(&pool, &history).await;
    assert_eq!(processor.repeated_calls(), 0, "a running job was not finished, or ran twice");
    assert_eq!((settled.claimed_again, settled.failures, settled.crashes), (0, 0, 0));
    assert!(next.is_running());
    println!("SIGTERM with running jobs: exit 0 after {took:.1?}, {finished} finished, none repeated; {settled:?}");
}

#[tokio::test]
async fn a_second_signal_releases_running_jobs_at_once() {
    const RUNS: usize = 30;
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    let processor = Processor::start(Duration::from_secs(60)).await;
    // With this long lease, only jobs that were released can be settled in time.
    let lease = [("QUEUE_LEASE_SECONDS", "60")];
    let variables = [&with_processor(&processor.url)[..], &[("PROCESSOR_TIMEOUT_SECONDS", "120")], &lease].concat();
    let api = Api::start(&database.url, &variables).await;
    let mut stopped = start_worker(&database.url, &variables).await;
    let ids: Vec<String> = (0..RUNS).map(|number| format!("txn_{number}")).collect();
    let history = post_webhooks(&http_client(), &api.url, &ids).await;
    eventually("all jobs are running", SOON, async || processor.calls() == RUNS).await;
    processor.set_delay(Duration::ZERO);
    let mut other = start_worker(&database.url, &variables).await;

    stopped.signal(Signal::SIGTERM);
    stopped.wait_for_line("draining").await;
    assert_eq!(count_running(&pool).await, RUNS as i64, "the first signal releases no job");
    let begun = Instant::now();
    stopped.signal(Signal::SIGTERM);
    let status = stopped.wait_for_exit(SOON).await;
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(0), "{status}");
    // Without the second signal, the worker would wait for the whole grace period. The limit is for a busy machine.
    assert!(took < GRACE / 2, "{took:?}");

    wait_until_settled(&pool, SOON).await;
    let run_elsewhere = begun.elapsed();
    let settled = assert_consistent(&pool, &history).await;
    assert_eq!((settled.transactions, settled.claimed_again), (RUNS, RUNS as i64));
    assert_eq!((settled.failures, settled.crashes), (0, 0), "a released job uses up no attempt");
    assert!(other.is_running());
    println!(
        "second SIGTERM with {RUNS} runs of 60 s: exit 0 after {took:.2?}, all run elsewhere after {run_elsewhere:.2?}"
    );
}

async fn count_running(pool: &PgPool) -> i64 {
    let count = "SELECT count(*) FROM apalis.jobs WHERE status = 'Running'";
    sqlx::query_scalar(count).fetch_one(pool).await.expect("a count")
}
