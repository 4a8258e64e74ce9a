//! Fair shares and limits of keys.

use std::{collections::BTreeMap, time::Duration};

use queue::{FairKey, Policy};

use crate::harness::{
    eventually,
    queue_harness::{FAST, QueueHarness, SHORT_LEASE, ScriptedJobs, Step, quick_policy},
};

const SOON: Duration = Duration::from_secs(20);

/// Adds due jobs whose name and key are `key`.
async fn add(harness: &QueueHarness, key: &str, jobs: usize, step: Step) {
    let step = serde_json::to_string(&step).unwrap();
    sqlx::query(
        "INSERT INTO apalis.jobs (id, job_type, job, fair_key, run_at)
         SELECT $1::text || '-' || n, 'scripted',
                convert_to(format('{\"name\":\"%s\",\"steps\":[%s]}', $1::text, $4::text), 'UTF8'), $2, now()
         FROM generate_series(1, $3) AS n",
    )
    .bind(key)
    .bind(FairKey::of(key).number())
    .bind(jobs as i32)
    .bind(step)
    .execute(&harness.pool)
    .await
    .unwrap();
}

fn names(scripted: &ScriptedJobs) -> Vec<String> {
    scripted.runs().into_iter().map(|run| run.name).collect()
}

/// One slot: each claim takes one job.
#[tokio::test]
async fn a_backlog_delays_the_first_job_of_another_key_by_at_most_two_claims() {
    const BACKLOG: usize = 100_000;
    let harness = QueueHarness::start().await;
    let scripted = ScriptedJobs::new(Policy { concurrency: 1, fair: true, ..quick_policy() });
    add(&harness, "flood", BACKLOG, Step::Done).await;
    let running = harness.start_worker(&scripted, FAST);
    eventually("the backlog is being run", SOON, async || scripted.runs().len() > 10).await;
    harness.enqueue_as("single", &[Step::Done], |job| job.fair_key(FairKey::of("other"))).await;
    let before = scripted.runs().len();
    eventually("the single job has run", SOON, async || scripted.runs_of("single") == 1).await;
    let at = names(&scripted).iter().position(|name| name == "single").unwrap();
    running.abort().await;
    println!("the single job was number {at}; {before} had run when it was committed");
    // The claim at its commit may not see it.
    assert!(at <= before + 3, "{} jobs ran before it", at - before);
}

#[tokio::test]
async fn keys_with_a_backlog_get_equal_shares_and_a_single_key_gets_all() {
    let harness = QueueHarness::start().await;
    let scripted = ScriptedJobs::new(Policy { concurrency: 12, fair: true, ..quick_policy() });
    for key in ["a", "b", "c"] {
        add(&harness, key, 50, Step::Wait).await;
    }
    let running = harness.start_worker(&scripted, FAST);
    eventually("all slots are in use", SOON, async || scripted.runs().len() == 12).await;
    let mut shares = BTreeMap::<String, usize>::new();
    names(&scripted).into_iter().for_each(|name| *shares.entry(name).or_default() += 1);
    assert_eq!(shares.into_values().collect::<Vec<_>>(), [4, 4, 4]);
    scripted.gate.add_permits(200);
    harness.wait_until("all are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
    // Jobs without a key, and of one key alone, get all slots.
    for key in [None, Some(FairKey::of("alone"))] {
        scripted.gate.forget_permits(200);
        for n in 0..12 {
            harness
                .enqueue_as(&format!("{n}"), &[Step::Wait], |job| match key {
                    Some(key) => job.fair_key(key),
                    None => job,
                })
                .await;
        }
        harness.wait_until("all run", "(SELECT count(*) = 12 FROM apalis.jobs WHERE status = 'Running')").await;
        scripted.gate.add_permits(12);
        harness.wait_until("all are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
    }
    running.stop().await;
}

/// More keys than one claim looks at: each has its turn.
#[tokio::test]
async fn each_key_of_many_has_its_turn() {
    const KEYS: usize = 300;
    let harness = QueueHarness::start().await;
    let scripted = ScriptedJobs::new(Policy { concurrency: 10, fair: true, ..quick_policy() });
    let names: Vec<String> = (0..KEYS).map(|n| format!("key {n}")).collect();
    for name in &names {
        add(&harness, name, 20, Step::Done).await;
    }
    let running = harness.start_worker(&scripted, FAST);
    eventually("each key has run once", SOON, async || names.iter().all(|name| scripted.runs_of(name) > 0)).await;
    let runs = scripted.runs().len();
    running.abort().await;
    assert!(runs < 3 * KEYS, "{runs} jobs ran until each of {KEYS} keys had run");
}

const RUNNING_BY_KEY: &str = "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM apalis.jobs
                              WHERE status = 'Running' GROUP BY fair_key) AS keys";

/// Four workers claim at the same time. Each run looks at the table; a job without a key is not limited.
#[tokio::test]
async fn a_limit_for_each_key_is_never_exceeded() {
    let harness = QueueHarness::start().await;
    let scripted = ScriptedJobs::new(Policy { concurrency: 20, per_key: Some(2), ..quick_policy() });
    add(&harness, "held", 5, Step::Wait).await;
    for n in 0..5 {
        add(&harness, &format!("key {n}"), 60, Step::Done).await;
    }
    let workers: Vec<_> = (0..4).map(|_| harness.start_worker(&scripted, FAST)).collect();
    let (mut looks, mut most) = (0, 0);
    loop {
        let now: i64 = sqlx::query_scalar(RUNNING_BY_KEY).fetch_one(&harness.pool).await.unwrap();
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM apalis.jobs WHERE id NOT LIKE 'held-%' AND status <> 'Done'")
                .fetch_one(&harness.pool)
                .await
                .unwrap();
        (looks, most) = (looks + 1, most.max(now));
        if left == 0 {
            break;
        }
    }
    println!("{looks} looks, at most {most} running jobs of a key");
    assert_eq!(most, 2, "the held jobs use the limit, and no key exceeds it");
    assert_eq!(scripted.runs().len(), 302);
    for _ in 0..30 {
        harness.enqueue("no key", &[Step::Wait]).await;
    }
    harness.wait_until("all run", "(SELECT count(*) = 32 FROM apalis.jobs WHERE status = 'Running')").await;
    scripted.gate.add_permits(35);
    for worker in workers {
        worker.stop().await;
    }
}

/// A worker that dies keeps the slot of its job only until its lease ends.
#[tokio::test]
async fn a_dead_worker_keeps_no_slot_of_a_limited_key() {
    let harness = QueueHarness::start().await;
    let scripted = ScriptedJobs::new(Policy { per_key: Some(1), ..quick_policy() });
    add(&harness, "key", 3, Step::Done).await;
    // A worker without a row has claimed one of them, and is gone.
    harness
        .execute("UPDATE apalis.jobs SET status = 'Running', lock_by = 'gone', attempts = 1 WHERE id = 'key-1'")
        .await;
    let running = harness.start_worker(&scripted, SHORT_LEASE);
    harness.wait_until("all are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
    running.stop().await;
    assert_eq!(scripted.runs().len(), 3);
}

/// The slot is free when the result is written, not at the next poll.
#[tokio::test]
async fn the_next_job_of_a_limited_key_starts_when_the_one_before_it_ends() {
    let harness = QueueHarness::start().await;
    let scripted = ScriptedJobs::new(Policy { per_key: Some(1), ..quick_policy() });
    let timing = queue::Timing { poll: crate::harness::queue_harness::NEVER, ..FAST };
    add(&harness, "key", 50, Step::Done).await;
    let running = harness.start_worker(&scripted, timing);
    harness.wait_until("all are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
    running.stop().await;
}

/// Keys that fill all slots leave none to jobs without a key, such as those from before the queue had fair shares.
#[tokio::test]
async fn jobs_without_a_key_start_while_keys_fill_all_slots() {
    let harness = QueueHarness::start().await;
    let scripted = ScriptedJobs::new(Policy { concurrency: 2, fair: true, ..quick_policy() });
    harness.enqueue("no key", &[Step::Done]).await;
    for key in ["one", "other"] {
        add(&harness, key, 200, Step::Done).await;
    }
    let running = harness.start_worker(&scripted, FAST);
    eventually("it has run", SOON, async || scripted.runs_of("no key") == 1).await;
    let at = names(&scripted).iter().position(|name| name == "no key").unwrap();
    running.abort().await;
    assert!(at < 40, "{at} of 400 jobs with a key ran before it");
}
