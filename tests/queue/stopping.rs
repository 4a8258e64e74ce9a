//! Promises 11 and 12: a stop loses no job and never hangs; database errors end no worker.

use std::time::Duration;

use queue::{CANCELLED, JobId, JobKinds, Operator, Policy, status::Cancelled};

use crate::harness::{
    eventually,
    queue_harness::{FAST, QueueHarness, ScriptedJobs, Step, order, quick_policy},
};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_drain_finishes_running_jobs_and_claims_no_more() {
    // The only slot is occupied until after the stop, so that a claim can only happen then.
    let (harness, scripted) =
        (QueueHarness::start().await, ScriptedJobs::new(Policy { concurrency: 1, ..quick_policy() }));
    harness.enqueue("running", &[Step::Wait]).await;
    let running = harness.start_worker(&scripted, FAST);
    eventually("the job runs", SOON, async || scripted.runs_of("running") == 1).await;
    running.shutdown.drain.cancel();
    harness.enqueue("too late", &[Step::Done]).await;
    scripted.gate.add_permits(1);
    running.wait_for_end().await;
    assert_eq!(harness.row("running").await.status, "Done");
    let left = harness.row("too late").await;
    assert_eq!((left.status.as_str(), left.attempts), ("Pending", 0));
    harness.wait_until("the worker has removed its row", "NOT EXISTS (SELECT FROM apalis.workers)").await;
}

/// The worker no longer listens, so only its interval finds the request.
#[tokio::test]
async fn a_job_is_cancelled_while_its_worker_drains() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = Operator::new(&harness.pool.clone().into(), &harness.queue, JobKinds::default());
    for (name, by_operator) in [("drained by an operator", true), ("drained by a signal", false)] {
        let id = JobId::generate();
        harness.enqueue_as(name, &[Step::Hang], |job| job.id(id)).await;
        let running = harness.start_worker(&scripted, FAST);
        let worker = running.worker.name.to_string();
        eventually("the job runs", SOON, async || scripted.runs_of(name) == 1).await;
        if by_operator {
            assert!(operator.drain_worker(&worker, &order()).await.unwrap());
        } else {
            running.shutdown.drain.cancel();
        }
        eventually("the worker drains", SOON, async || {
            let workers = operator.workers().await.unwrap();
            workers.iter().any(|row| row.id == worker && row.report.as_ref().is_some_and(|report| report.draining))
        })
        .await;
        assert_eq!(operator.cancel(&id.to_string(), &order()).await.unwrap(), Cancelled::Requested);
        running.wait_for_end().await;
        let row = harness.row(name).await;
        let seen = (row.status.as_str(), row.attempts, row.last_error.as_deref());
        assert_eq!(seen, ("Cancelled", 1, Some(CANCELLED)), "{name}");
    }
}

#[tokio::test]
async fn jobs_that_cannot_finish_are_released_at_once_and_use_up_no_attempt() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    // More jobs than a batch of the engine; the original apalis backend hangs here.
    for n in 0..10 {
        harness.enqueue(&format!("job {n}"), &[Step::Hang, Step::Done]).await;
    }
    let running = harness.start_worker(&scripted, FAST);
    eventually("all run", SOON, async || scripted.runs().len() == 10).await;
    running.abort().await;
    for n in 0..10 {
        let row = harness.row(&format!("job {n}")).await;
        let seen = (row.status.as_str(), row.failures, row.crashes, row.last_error);
        assert_eq!(seen, ("Pending", 0, 0, None), "job {n}");
        assert!(row.due_in <= 0.0, "job {n} keeps its due time");
    }
    harness.run_all(&scripted).await;
    assert_eq!(scripted.runs().len(), 20);
}

#[tokio::test]
async fn a_stop_without_a_database_ends() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let nowhere = runtime::db::Database::parse("postgres:///none?host=/nonexistent").unwrap();
    let shutdown = runtime::shutdown::Shutdown::default();
    let registry = queue::Registry::default().job::<crate::harness::queue_harness::ScriptedJob>(scripted);
    let worker = queue::Worker::start(&nowhere, FAST, registry, &shutdown).unwrap();
    shutdown.drain.cancel();
    tokio::time::timeout(SOON, worker.stopped())
        .await
        .expect("the worker stops")
        .expect("the worker ends without an error");
    drop(harness);
}

#[tokio::test]
async fn lost_connections_lose_no_job() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let running = harness.start_worker(&scripted, FAST);
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE application_name LIKE 'millrace %' AND datname = current_database()";
    for n in 0..30 {
        harness.enqueue(&format!("job {n}"), &[Step::Done]).await;
        if n % 3 == 0 {
            harness.execute(cut).await;
        }
    }
    harness.wait_until("all are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
    running.stop().await;
    for n in 0..30 {
        assert_eq!(scripted.runs_of(&format!("job {n}")), 1, "job {n}: its result was kept until it could be written");
    }
}

/// Promise 10: the run has ended, and the write of its result fails before the commit.
#[tokio::test]
async fn a_result_is_kept_until_it_is_written() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("done", &[Step::Wait]).await;
    harness.enqueue("rejected", &[Step::WaitThen(Box::new(Step::Reject))]).await;
    let running = harness.start_worker(&scripted, FAST);
    eventually("both run", SOON, async || scripted.runs().len() == 2).await;
    let mut lock = harness.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM apalis.jobs FOR UPDATE").execute(&mut *lock).await.unwrap();
    scripted.gate.add_permits(2);
    let waiting = "pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
                   AND application_name = 'millrace queue'";
    // One statement, or two if the results were ready at different times. Each waits for its time limit at most.
    let cut = format!("SELECT pg_terminate_backend(pid) FROM {waiting}");
    eventually("a result waits for its row and is cut off", SOON, async || harness.execute(&cut).await >= 1).await;
    lock.rollback().await.unwrap();
    harness
        .wait_until("both are written", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status IN ('Pending', 'Running'))")
        .await;
    running.stop().await;
    assert_eq!(scripted.runs().len(), 2, "each ran once");
    for (name, status) in [("done", "Done"), ("rejected", "Killed")] {
        let row = harness.row(name).await;
        assert_eq!((row.status.as_str(), row.attempts), (status, 1), "{name}");
    }
}
