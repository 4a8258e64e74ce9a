//! Promises 11 and 12: a stop loses nothing and never hangs; errors of the database end nothing.

use std::time::Duration;

use jobs::queue::Policy;

use crate::harness::{
    eventually,
    stage::{Act, FAST, Stage, Theatre, quick_policy},
};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_drain_finishes_what_runs_and_claims_nothing_more() {
    // One slot, and it is taken: the next claim can only come when it is free again, after the stop.
    let (theatre, stage) = (Theatre::open().await, Stage::new(Policy { concurrency: 1, ..quick_policy() }));
    theatre.enqueue("running", &[Act::Wait]).await;
    let running = theatre.worker(&stage, FAST);
    eventually("it runs", SOON, async || stage.runs_of("running") == 1).await;
    running.shutdown.drain.cancel();
    theatre.enqueue("too late", &[Act::Done]).await;
    stage.gate.add_permits(1);
    running.stopped().await;
    assert_eq!(theatre.row("running").await.status, "Done");
    let left = theatre.row("too late").await;
    assert_eq!((left.status.as_str(), left.attempts), ("Pending", 0));
    theatre.until("the worker has left", "NOT EXISTS (SELECT FROM apalis.workers)").await;
}

#[tokio::test]
async fn what_cannot_finish_is_given_back_at_once_and_costs_no_attempt() {
    let (theatre, stage) = (Theatre::open().await, Stage::new(quick_policy()));
    // More than any batch of the engine: the stock backend hangs here.
    for n in 0..10 {
        theatre.enqueue(&format!("job {n}"), &[Act::Hang, Act::Done]).await;
    }
    let running = theatre.worker(&stage, FAST);
    eventually("all run", SOON, async || stage.ran().len() == 10).await;
    running.shutdown.drain.cancel();
    running.shutdown.now.cancel();
    running.stopped().await;
    for n in 0..10 {
        let row = theatre.row(&format!("job {n}")).await;
        let seen = (row.status.as_str(), row.failures, row.crashes, row.last_error);
        assert_eq!(seen, ("Pending", 0, 0, None), "job {n}");
        assert!(row.due_in <= 0.0, "job {n} keeps its place");
    }
    theatre.run_all(&stage).await;
    assert_eq!(stage.ran().len(), 20);
}

#[tokio::test]
async fn a_stop_without_a_database_ends_too() {
    let (theatre, stage) = (Theatre::open().await, Stage::new(quick_policy()));
    let nowhere = jobs::boot::db::Database::parse("postgres:///none?host=/nonexistent").unwrap();
    let shutdown = jobs::boot::shutdown::Shutdown::default();
    let registry = jobs::queue::Registry::default().job::<crate::harness::stage::Scripted>(stage);
    let worker = jobs::queue::Worker::start(&nowhere, FAST, registry, &shutdown).unwrap();
    shutdown.drain.cancel();
    tokio::time::timeout(SOON, worker.stopped()).await.expect("it stops").expect("in good order");
    drop(theatre);
}

#[tokio::test]
async fn lost_connections_lose_no_job() {
    let (theatre, stage) = (Theatre::open().await, Stage::new(quick_policy()));
    let running = theatre.worker(&stage, FAST);
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE application_name LIKE 'millrace %' AND datname = current_database()";
    for n in 0..30 {
        theatre.enqueue(&format!("job {n}"), &[Act::Done]).await;
        if n % 3 == 0 {
            theatre.execute(cut).await;
        }
    }
    theatre.until("all are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
    running.stop().await;
    for n in 0..30 {
        assert_eq!(stage.runs_of(&format!("job {n}")), 1, "job {n}: a result was kept until it could be written");
    }
}

/// Promise 10: the write of a result fails, uncommitted, after its run has ended.
#[tokio::test]
async fn a_result_is_kept_until_it_is_written() {
    let (theatre, stage) = (Theatre::open().await, Stage::new(quick_policy()));
    theatre.enqueue("done", &[Act::Wait]).await;
    theatre.enqueue("rejected", &[Act::WaitThen(Box::new(Act::Reject))]).await;
    let running = theatre.worker(&stage, FAST);
    eventually("both run", SOON, async || stage.ran().len() == 2).await;
    let mut lock = theatre.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM apalis.jobs FOR UPDATE").execute(&mut *lock).await.unwrap();
    stage.gate.add_permits(2);
    let waiting = "pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
                   AND application_name = 'millrace queue'";
    theatre.until("a result waits for its row", &format!("EXISTS (SELECT FROM {waiting})")).await;
    // One statement, or two when the results were ready at different times.
    assert!(theatre.execute(&format!("SELECT pg_terminate_backend(pid) FROM {waiting}")).await >= 1);
    lock.rollback().await.unwrap();
    theatre
        .until("both are written", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status IN ('Pending', 'Running'))")
        .await;
    running.stop().await;
    assert_eq!(stage.ran().len(), 2, "each ran once");
    for (name, status) in [("done", "Done"), ("rejected", "Killed")] {
        let row = theatre.row(name).await;
        assert_eq!((row.status.as_str(), row.attempts), (status, 1), "{name}");
    }
}
