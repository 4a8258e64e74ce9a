//! The number of waiting jobs of a long queue, and of one queue alone.

use queue::{JobKinds, NewJob, Operator, Retention, Timing, enqueue, operator::pauses::Pausing, status::DepthIs};

use crate::harness::{
    eventually,
    queue_harness::{FAST, NEVER, QueueHarness, ScriptedJob, ScriptedJobs, Step, order, quick_policy},
};

/// Counts often what may be counted.
const OFTEN: Timing =
    Timing { retention: Retention { every: std::time::Duration::from_millis(50), ..FAST.retention }, ..FAST };
const SOON: std::time::Duration = std::time::Duration::from_secs(30);

fn operator(harness: &QueueHarness) -> Operator {
    Operator::new(&harness.pool.clone().into(), &harness.queue, JobKinds::default())
}

/// The numbers of waiting and due jobs of the scripted queue, and what they are.
async fn depth(harness: &QueueHarness) -> (i64, i64, DepthIs) {
    let queue = operator(harness).queue("scripted").await.unwrap().expect("the queue");
    (queue.waiting, queue.due, queue.depth_is)
}

/// Enqueues due jobs in one transaction.
async fn enqueue_many(harness: &QueueHarness, count: usize) {
    let job = || NewJob::of(&ScriptedJob { name: "job".into(), steps: vec![Step::Done] }).unwrap();
    let jobs: Vec<NewJob> = (0..count).map(|_| job()).collect();
    let mut tx = harness.queue.begin().await.unwrap();
    enqueue(&mut tx, &jobs).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_long_queue_is_estimated_from_its_last_count_and_what_came_since() {
    let harness = QueueHarness::start().await;
    let scripted = ScriptedJobs::new(quick_policy());
    let running = harness.start_worker(&scripted, OFTEN);
    let counted = "EXISTS (SELECT FROM queue_depths WHERE queue = 'scripted' AND waiting = 0)";
    harness.wait_until("the empty queue is counted", counted).await;
    assert_eq!(operator(&harness).pause("scripted", None, &order()).await.unwrap(), Pausing::Paused);
    harness.wait_for_heartbeats(1).await;
    assert_eq!(depth(&harness).await, (0, 0, DepthIs::Exact));
    enqueue_many(&harness, 12_345).await;
    assert_eq!(depth(&harness).await, (10_000, 10_000, DepthIs::AtLeast), "what came since is not written yet");
    eventually("the new jobs are counted", SOON, async || {
        depth(&harness).await == (12_345, 12_345, DepthIs::Estimated)
    })
    .await;

    // Another program's jobs are known after the next count.
    harness
        .execute(
            "INSERT INTO apalis.jobs (id, job_type, job, status, run_at, priority)
             SELECT 'other ' || n, 'scripted', '', 'Pending', now() + interval '1 day', 0 FROM generate_series(1, 655) AS n",
        )
        .await;
    assert_eq!(depth(&harness).await.0, 12_345);
    harness.execute("UPDATE queue_depths SET counted_at = now() - interval '2 minutes'").await;
    eventually("they are counted", SOON, async || depth(&harness).await == (13_000, 12_345, DepthIs::Estimated)).await;
    running.abort().await;
}

#[tokio::test]
async fn the_estimate_follows_a_drain() {
    let harness = QueueHarness::start().await;
    let scripted = ScriptedJobs::new(quick_policy());
    enqueue_many(&harness, 11_000).await;
    harness.wait_until("they are in the minutes", "(SELECT sum(enqueued) = 11000 FROM queue_minutes)").await;
    operator(&harness).pause("scripted", None, &order()).await.unwrap();
    let running = harness.start_worker(&scripted, OFTEN);
    harness.wait_until("they are counted", "(SELECT waiting = 11000 FROM queue_depths WHERE queue = 'scripted')").await;
    assert_eq!(depth(&harness).await, (11_000, 11_000, DepthIs::Estimated));
    operator(&harness).resume("scripted", &order()).await.unwrap();
    let some = "(SELECT sum(started) > 50 FROM queue_minutes)";
    harness.wait_until("some have run", some).await;
    operator(&harness).pause("scripted", None, &order()).await.unwrap();
    eventually("the estimate is what is left", SOON, async || {
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM apalis.jobs WHERE status = 'Pending'")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
        let (estimate, _, is) = depth(&harness).await;
        estimate == waiting && (is == DepthIs::Estimated || waiting < 10_000)
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn one_queue_is_shown_as_in_the_overview() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    for n in 0..3 {
        harness.enqueue_as(&format!("later {n}"), &[Step::Done], |job| job.after(NEVER)).await;
    }
    let running = harness.start_worker(&scripted, FAST);
    harness.wait_for_heartbeats(1).await;
    let operator = operator(&harness);
    let all = operator.overview().await.unwrap().queues;
    let one = operator.queue_overview("scripted").await.unwrap().expect("it exists");
    let listed = all.iter().find(|queue| queue.status.name == "scripted").expect("it is listed");
    let facts = |queue: &queue::operator::overview::QueueOverview| {
        (queue.status.waiting, queue.status.due, queue.status.workers, queue.slots, queue.minutes.len())
    };
    assert_eq!(facts(&one), facts(listed));
    assert_eq!(facts(&one), (3, 0, 1, 10, 60));
    assert!(operator.queue_overview("unknown").await.unwrap().is_none());
    running.stop().await;
}
