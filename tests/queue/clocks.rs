//! Promises 4 and 8: steps of the database's clock repeat no run of a live worker, and delay no rescue.

use std::time::Duration;

use crate::harness::{
    clock::SteppedServer,
    eventually,
    queue_harness::{QueueHarness, SHORT_LEASE, ScriptedJobs, Step, WATCHED_LEASE, quick_policy},
};

const SOON: Duration = Duration::from_secs(20);
/// Steps longer than every lease, forwards and backwards, then back to the real time.
const STEPS: [i64; 5] = [20, -20, 600, -600, 0];
const JOBS: usize = 5;

#[tokio::test]
async fn steps_of_the_clock_repeat_no_run_of_a_live_worker() {
    let Some(server) = SteppedServer::start().await else { return };
    let (harness, scripted) = (QueueHarness::on_database(&server.url).await, ScriptedJobs::new(quick_policy()));
    let start = || harness.start_worker(&scripted, WATCHED_LEASE);
    let (one, other) = (start(), start());
    harness.wait_until("both workers have a row", "(SELECT count(*) FROM apalis.workers) = 2").await;
    for n in 0..JOBS {
        harness.enqueue(&format!("job {n}"), &[Step::Wait]).await;
    }
    eventually("all run", SOON, async || scripted.runs().len() == JOBS).await;
    for step in STEPS {
        server.step(step);
        // Longer than a lease, in which each worker looks for dead workers many times.
        harness.wait_for_heartbeats(30).await;
        let held = format!("(SELECT count(*) FROM apalis.jobs WHERE status = 'Running' AND attempts = 1) = {JOBS}");
        harness.wait_until(&format!("all are held after a step to {step} s"), &held).await;
        assert_eq!(scripted.runs().len(), JOBS, "after a step to {step} s");
    }
    scripted.gate.add_permits(JOBS);
    harness.wait_until("all are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
    one.stop().await;
    other.stop().await;
    assert_eq!(scripted.runs().len(), JOBS, "each ran once");
    harness.wait_until("no crash was counted", "(SELECT max(crashes) = 0 FROM apalis.jobs)").await;
}

#[tokio::test]
async fn steps_of_the_clock_delay_no_rescue() {
    let Some(server) = SteppedServer::start().await else { return };
    let harness = QueueHarness::on_database(&server.url).await;
    for (number, step) in STEPS.into_iter().enumerate() {
        let scripted = ScriptedJobs::new(quick_policy());
        let name = format!("job {number}");
        harness.enqueue(&name, &[Step::Done]).await;
        let dead = format!(
            "WITH dead AS (
                 INSERT INTO apalis.workers (id, worker_type, storage_name, last_seen, lease)
                 VALUES ('dead {number}', 'millrace', 'PostgreSQL', now(), '1 s'))
             UPDATE apalis.jobs SET status = 'Running', lock_by = 'dead {number}', attempts = 1 WHERE status = 'Pending'"
        );
        assert_eq!(harness.execute(&dead).await, 1);
        server.step(step);
        let running = harness.start_worker(&scripted, SHORT_LEASE);
        // A lease and a rescue interval suffice; the rest is for a machine that runs three other builds.
        eventually(&format!("the job runs after a step to {step} s"), SOON, async || scripted.runs_of(&name) == 1)
            .await;
        running.stop().await;
        assert_eq!(harness.row(&name).await.crashes, 1);
    }
}

/// The overview counts live workers correctly one heartbeat after a step.
#[tokio::test]
async fn the_overview_is_correct_one_heartbeat_after_a_step() {
    let Some(server) = SteppedServer::start().await else { return };
    let (harness, scripted) = (QueueHarness::on_database(&server.url).await, ScriptedJobs::new(quick_policy()));
    harness
        .execute(
            "INSERT INTO apalis.workers (id, worker_type, storage_name, layers, last_seen, lease)
             VALUES ('dead', 'millrace', 'PostgreSQL', 'scripted', now() - interval '5 s', '1 s')",
        )
        .await;
    let operator = queue::Operator::new(&harness.pool.clone().into(), &harness.queue, queue::JobKinds::default());
    let running = harness.start_worker(&scripted, SHORT_LEASE);
    for step in STEPS {
        server.step(step);
        let what = format!("one worker is alive after a step to {step} s");
        eventually(&what, SOON, async || {
            let queues = operator.queues().await.expect("an overview");
            queues.iter().find(|queue| queue.name == "scripted").is_some_and(|queue| queue.workers == 1)
        })
        .await;
    }
    running.stop().await;
}
