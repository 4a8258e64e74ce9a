//! The number of waiting jobs of a long queue, and of one queue alone.

use queue::{
    JobKinds, NewJob, Operator, Retention, Timing, enqueue,
    operator::{
        overview::{OverviewCache, QueueOverview},
        pauses::Pausing,
    },
    status::DepthIs,
};

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
    // This process writes its counts every five seconds, and not while they are locked.
    let mut lock = harness.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE queue_minutes IN SHARE MODE").execute(&mut *lock).await.unwrap();
    enqueue_many(&harness, 12_345).await;
    assert_eq!(depth(&harness).await, (10_000, 10_000, DepthIs::AtLeast), "what came since is not written yet");
    lock.rollback().await.unwrap();
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

/// The server's clock was ahead at the last count.
#[tokio::test]
async fn a_count_of_a_later_time_is_renewed() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let running = harness.start_worker(&scripted, OFTEN);
    let counted = "EXISTS (SELECT FROM queue_depths WHERE queue = 'scripted' AND counted_at <= now())";
    harness.wait_until("the queue is counted", counted).await;
    harness.execute("UPDATE queue_depths SET counted_at = now() + interval '1 hour'").await;
    harness.wait_until("it is counted again", counted).await;
    running.stop().await;
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
    // The first heartbeat may come before the worker has added its queues.
    let reported = "(SELECT status #>> '{queues,scripted,slots}' = '10' FROM apalis.workers)";
    harness.wait_until("the worker has reported its slots", reported).await;
    let operator = operator(&harness);
    let all = operator.overview().await.unwrap().queues;
    let one = operator.queue_overview("scripted").await.unwrap().expect("it exists");
    let listed = all.iter().find(|queue| queue.status.name == "scripted").expect("it is listed");
    let facts = |queue: &QueueOverview| {
        (queue.status.waiting, queue.status.due, queue.status.workers, queue.slots, queue.minutes.len())
    };
    assert_eq!(facts(&one), facts(listed));
    assert_eq!(facts(&one), (3, 0, 1, 10, 60));
    assert!(operator.queue_overview("unknown").await.unwrap().is_none());
    running.stop().await;
}

/// Depths of all priorities, also beyond the limit: due jobs are counted first.
#[tokio::test]
async fn due_jobs_are_counted_before_those_of_later() {
    let harness = QueueHarness::start().await;
    let add = async |count: i64, priority: i32, due: &str| {
        let rows = format!(
            "INSERT INTO apalis.jobs (id, job_type, job, status, run_at, priority)
             SELECT '{priority} {due} ' || n, 'scripted', '', 'Pending', now() + interval '{due}', {priority}
             FROM generate_series(1, {count}) AS n"
        );
        harness.execute(&rows).await;
    };
    add(4000, 1, "-1 hour").await;
    add(3000, 0, "1 hour").await;
    add(2000, -1, "-2 hours").await;
    assert_eq!(depth(&harness).await, (9000, 6000, DepthIs::Exact));
    add(5000, 1, "1 hour").await;
    assert_eq!(depth(&harness).await, (10_000, 6000, DepthIs::AtLeast));
    add(4000, 0, "-3 hours").await;
    assert_eq!(depth(&harness).await, (10_000, 10_000, DepthIs::AtLeast));
    let queue = operator(&harness).queue("scripted").await.unwrap().expect("the queue");
    assert!(queue.late.is_some_and(|late| (10_799.0..10_900.0).contains(&late)), "{:?}", queue.late);
}

#[tokio::test]
async fn a_watching_view_sees_depths_at_once_and_dead_jobs_as_of_a_stated_time() {
    let harness = QueueHarness::start().await;
    let operator = operator(&harness);
    let first_rows = "('01', 'scripted', '', 'Killed'), ('02', 'scripted', '', 'Pending'), ('03', 'done', '', 'Done')";
    let later_rows = "('04', 'scripted', '', 'Killed'), ('05', 'scripted', '', 'Pending'),
                      ('06', 'scripted', '', 'Done'), ('07', 'new', '', 'Pending')";
    let insert = |rows: &str| format!("INSERT INTO apalis.jobs (id, job_type, job, status) VALUES {rows}");
    harness.execute(&insert(first_rows)).await;
    let mut cache = OverviewCache::default();
    let first = operator.watch_overview(&mut cache).await.unwrap();
    // One statement, because the view keeps what it has read for ten seconds only.
    harness.execute(&insert(later_rows)).await;
    let second = operator.watch_overview(&mut cache).await.unwrap();
    let facts = |queues: &[QueueOverview]| {
        let status = queues.iter().map(|queue| &queue.status);
        status.map(|one| (one.name.clone(), one.waiting, one.dead, one.recently_done)).collect::<Vec<_>>()
    };
    let queue = |name: &str, waiting, dead, done| (name.to_owned(), waiting, dead, done);
    assert_eq!(facts(&first.queues), [queue("done", 0, 0, 1), queue("scripted", 1, 1, 0)]);
    assert_eq!(facts(&second.queues), [queue("done", 0, 0, 1), queue("new", 1, 0, 0), queue("scripted", 2, 1, 0)]);
    assert!(second.rates_at == first.rates_at && second.at > first.at, "{:?} {:?}", second.rates_at, second.at);
    let all = operator.overview().await.unwrap();
    assert_eq!(facts(&all.queues), [queue("done", 0, 0, 1), queue("new", 1, 0, 0), queue("scripted", 2, 2, 1)]);
}
