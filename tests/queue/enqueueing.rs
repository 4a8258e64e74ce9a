//! Promise 1: a job is part of its transaction and carries its origin. Promise 13: unique jobs.

use std::time::Duration;

use queue::{JobId, NewJob, Origin, Policy, Tx, enqueue, lock_waiting_job};
use tokio::task::JoinSet;

use crate::harness::{
    eventually,
    queue_harness::{FAST, QueueHarness, ScriptedJob, ScriptedJobs, Step, quick_policy},
};

#[tokio::test]
async fn a_job_exists_if_and_only_if_its_transaction_commits() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let job = |name: &str| NewJob::of(&ScriptedJob { name: name.into(), steps: vec![] }).unwrap();
    let mut tx = harness.queue.begin().await.unwrap();
    enqueue(&mut tx, &[job("rolled back")]).await.unwrap();
    drop(tx);
    let mut tx = harness.queue.begin().await.unwrap();
    enqueue(&mut tx, &[job("first"), job("second")]).await.unwrap();
    tx.commit().await.unwrap();
    harness.run_all(&scripted).await;
    let mut names: Vec<String> = scripted.runs().into_iter().map(|recorded| recorded.name).collect();
    names.sort();
    assert_eq!(names, ["first", "second"]);
}

#[tokio::test]
async fn a_job_carries_its_origin() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let origin = Origin {
        correlation_id: Some("req-1".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    };
    harness.enqueue_as("with", &[Step::Done], |job| job.origin(origin.clone())).await;
    harness.enqueue("without", &[Step::Done]).await;
    harness.run_all(&scripted).await;
    for recorded in scripted.runs() {
        let expected = if recorded.name == "with" { origin.clone() } else { Origin::default() };
        assert_eq!(recorded.run.origin, expected, "{}", recorded.name);
    }
}

/// Enqueues jobs with a key, and returns how many were added.
async fn enqueue_unique(tx: &mut Tx, key: &str, names: &[&str]) -> usize {
    let job = |name: &&str| NewJob::of(&ScriptedJob { name: (*name).into(), steps: vec![] }).unwrap().unique(key);
    enqueue(tx, &names.iter().map(job).collect::<Vec<_>>()).await.unwrap().len()
}

#[tokio::test]
async fn a_key_is_in_use_while_its_job_waits_or_runs_and_free_afterwards() {
    let (harness, scripted) =
        (QueueHarness::start().await, ScriptedJobs::new(Policy { attempts: 1, ..quick_policy() }));
    let job =
        |name: &str, steps: &[Step]| NewJob::of(&ScriptedJob { name: name.into(), steps: steps.to_vec() }).unwrap();
    let mut tx = harness.queue.begin().await.unwrap();
    let ids: [JobId; 5] = std::array::from_fn(|_| JobId::generate());
    let jobs = [
        job("no key", &[]).id(ids[0]),
        job("first", &[Step::Wait]).unique("a").id(ids[1]),
        job("skipped", &[]).unique("a").id(ids[2]),
        job("other key", &[Step::WaitThen(Box::new(Step::Fail))]).unique("b").id(ids[3]),
        job("no key either", &[]).id(ids[4]),
    ];
    assert_eq!(enqueue(&mut tx, &jobs).await.unwrap(), [ids[0], ids[1], ids[3], ids[4]]);
    assert_eq!(enqueue_unique(&mut tx, "a", &["skipped"]).await, 0, "within its transaction");
    tx.commit().await.unwrap();
    let mut tx = harness.queue.begin().await.unwrap();
    assert_eq!(enqueue_unique(&mut tx, "b", &["skipped"]).await, 0, "while it waits");
    tx.commit().await.unwrap();

    let running = harness.start_worker(&scripted, FAST);
    harness.wait_until("both run", "(SELECT count(*) FROM apalis.jobs WHERE status = 'Running') = 2").await;
    let mut tx = harness.queue.begin().await.unwrap();
    assert_eq!(enqueue_unique(&mut tx, "a", &["skipped"]).await, 0, "while it runs");
    // Later statements of the same transaction still work.
    enqueue(&mut tx, &[job("after a skipped one", &[])]).await.unwrap();
    tx.commit().await.unwrap();
    scripted.gate.add_permits(2);
    let ended = "(SELECT array_agg(status ORDER BY status) FROM apalis.jobs WHERE idempotency_key IS NOT NULL)
                 = '{Done,Killed}'";
    harness.wait_until("one is done, one is dead", ended).await;
    let mut tx = harness.queue.begin().await.unwrap();
    assert_eq!(enqueue_unique(&mut tx, "a", &["after the done one"]).await, 1);
    assert_eq!(enqueue_unique(&mut tx, "b", &["after the dead one"]).await, 1);
    tx.commit().await.unwrap();
    harness
        .wait_until("all have ended", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status NOT IN ('Done', 'Killed'))")
        .await;
    running.stop().await;
    assert_eq!((scripted.runs().len(), scripted.runs_of("skipped")), (7, 0));
}

/// The second transaction waits for the end of the first, and gets the key if the first is rolled back.
#[tokio::test]
async fn of_two_transactions_with_one_key_one_has_the_job() {
    let harness = QueueHarness::start().await;
    for (commits, added) in [(true, 0), (false, 1)] {
        let key = format!("first commits: {commits}");
        let (mut first, mut second) = (harness.queue.begin().await.unwrap(), harness.queue.begin().await.unwrap());
        assert_eq!(enqueue_unique(&mut first, &key, &["first"]).await, 1);
        let waiting = tokio::spawn(async move {
            let added = enqueue_unique(&mut second, &key, &["second"]).await;
            second.commit().await.unwrap();
            added
        });
        let waits =
            "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
        harness.wait_until("the second waits for the first", waits).await;
        if commits {
            first.commit().await.unwrap();
        } else {
            drop(first);
        }
        assert_eq!(waiting.await.unwrap(), added, "first commits: {commits}");
    }
    let live = "SELECT count(*) FROM apalis.jobs WHERE status = 'Pending'";
    assert_eq!(sqlx::query_scalar::<_, i64>(live).fetch_one(&harness.pool).await.unwrap(), 2);
}

/// Each statement locks its keys in order, so that callers with the same keys in reverse order do not deadlock.
#[tokio::test]
async fn many_transactions_with_the_same_keys_end_with_one_job_each() {
    const CALLERS: usize = 8;
    const KEYS: usize = 50;
    let harness = QueueHarness::start().await;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let queue = harness.queue.clone();
        callers.spawn(async move {
            let mut jobs: Vec<NewJob> = (0..KEYS)
                .map(|n| {
                    NewJob::of(&ScriptedJob { name: n.to_string(), steps: vec![] }).unwrap().unique(format!("{n}"))
                })
                .collect();
            if caller % 2 == 1 {
                jobs.reverse();
            }
            let mut tx = queue.begin().await.unwrap();
            let added = enqueue(&mut tx, &jobs).await.unwrap().len();
            tx.commit().await.unwrap();
            added
        });
    }
    assert_eq!(callers.join_all().await.into_iter().sum::<usize>(), KEYS);
    harness.wait_until("each key has its job", &format!("(SELECT count(*) FROM apalis.jobs) = {KEYS}")).await;
}

/// Two live jobs with one key would break the promise, so the schema refuses the replay.
#[tokio::test]
async fn a_dead_letter_stays_dead_while_a_live_job_has_its_key() {
    let harness = QueueHarness::start().await;
    harness.enqueue_as("dead", &[], |job| job.unique("key")).await;
    harness.execute("UPDATE apalis.jobs SET status = 'Killed'").await;
    harness.enqueue_as("successor", &[], |job| job.unique("key")).await;
    let replay = "UPDATE apalis.jobs SET status = 'Pending' WHERE status = 'Killed'";
    let refused = sqlx::query(replay).execute(&harness.pool).await.unwrap_err();
    assert!(refused.as_database_error().is_some_and(|error| error.is_unique_violation()), "{refused}");
    harness.execute("UPDATE apalis.jobs SET status = 'Done' WHERE status = 'Pending'").await;
    assert_eq!(harness.execute(replay).await, 1, "the key is free again");
}

/// Jobs without a key and finished jobs have no entry in the index of keys.
#[tokio::test]
async fn only_live_jobs_with_a_key_have_an_index_entry() {
    let harness = QueueHarness::start().await;
    let jobs: Vec<NewJob> =
        (0..1000).map(|n| NewJob::of(&ScriptedJob { name: n.to_string(), steps: vec![] }).unwrap()).collect();
    let mut tx = harness.queue.begin().await.unwrap();
    assert_eq!(enqueue(&mut tx, &jobs).await.unwrap().len(), 1000);
    tx.commit().await.unwrap();
    harness.enqueue_as("with a key", &[], |job| job.unique("key")).await;
    // REINDEX stores the number of entries; -1 means that there are none.
    let entries = async || {
        harness.execute("REINDEX INDEX apalis.idx_jobs_idempotency_key").await;
        let entries = "SELECT greatest(reltuples, 0)::int8 FROM pg_class WHERE relname = 'idx_jobs_idempotency_key'";
        sqlx::query_scalar::<_, i64>(entries).fetch_one(&harness.pool).await.unwrap()
    };
    assert_eq!(entries().await, 1);
    harness.execute("UPDATE apalis.jobs SET status = 'Done'").await;
    // Rows that a running statement may still see get an entry, too.
    eventually("no entry is left", Duration::from_secs(60), async || entries().await == 0).await;
}

#[tokio::test]
async fn a_held_job_starts_after_the_transaction() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue_as("held", &[Step::Done], |job| job.unique("k@1")).await;
    let mut tx = harness.queue.begin().await.unwrap();
    assert!(!lock_waiting_job(&mut tx, "scripted", "j@", "jA").await.unwrap(), "another key");
    assert!(lock_waiting_job(&mut tx, "scripted", "k@", "kA").await.unwrap());
    let running = harness.start_worker(&scripted, FAST);
    // Claims follow the due times. A claim of the later job has skipped the held one.
    harness.enqueue("later", &[Step::Done]).await;
    eventually("the later job has run", Duration::from_secs(10), async || scripted.runs_of("later") == 1).await;
    assert_eq!(scripted.runs_of("held"), 0);
    tx.commit().await.unwrap();
    eventually("the held job has run", Duration::from_secs(10), async || scripted.runs_of("held") == 1).await;
    running.stop().await;
}
