//! Promise 2: claims take only jobs that can run now, in order, in tables of any size. Promise 9: unknown jobs stay.

use std::time::{Duration, Instant};

use queue::{Policy, Priority};

use crate::harness::{
    eventually,
    queue_harness::{FAST, QueueHarness, ScriptedJobs, Step, quick_policy},
};

#[tokio::test]
async fn a_worker_claims_only_as_many_jobs_as_it_can_run() {
    let (harness, scripted) =
        (QueueHarness::start().await, ScriptedJobs::new(Policy { concurrency: 3, ..quick_policy() }));
    for n in 0..8 {
        harness.enqueue(&format!("job {n}"), &[Step::Wait]).await;
    }
    let running = harness.start_worker(&scripted, FAST);
    let claimed = "(SELECT count(*) FROM apalis.jobs WHERE status = 'Running') = 3";
    harness.wait_until("three are claimed", claimed).await;
    eventually("three run", Duration::from_secs(10), async || scripted.runs().len() == 3).await;
    // Every poll sees the other five jobs, and must not claim them.
    harness.wait_until_idle().await;
    harness.wait_until("still three are claimed", claimed).await;
    scripted.gate.add_permits(8);
    harness.wait_until("all are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
    running.stop().await;
    assert_eq!(scripted.runs().len(), 8);
}

#[tokio::test]
async fn jobs_are_claimed_by_priority_then_by_due_time() {
    let (harness, scripted) =
        (QueueHarness::start().await, ScriptedJobs::new(Policy { concurrency: 1, ..quick_policy() }));
    // In minutes, so that a stall between two of these statements does not change the order.
    for (name, priority, age) in [
        ("low, oldest", Priority::Low, 30),
        ("normal, younger", Priority::Normal, 5),
        ("normal, older", Priority::Normal, 10),
        ("high, youngest", Priority::High, 1),
    ] {
        harness.enqueue_as(name, &[Step::Done], |job| job.priority(priority)).await;
        let wait = format!(
            "UPDATE apalis.jobs SET run_at = run_at - interval '{age} minutes'
             WHERE position('{name}' IN convert_from(job, 'UTF8')) > 0"
        );
        assert_eq!(harness.execute(&wait).await, 1, "{name} has waited for {age} min");
    }
    harness.run_all(&scripted).await;
    let order: Vec<String> = scripted.runs().into_iter().map(|recorded| recorded.name).collect();
    assert_eq!(order, ["high, youngest", "normal, older", "normal, younger", "low, oldest"]);
}

#[tokio::test]
async fn unknown_job_types_wait_and_undecodable_jobs_affect_no_others() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness
        .execute(
            "INSERT INTO apalis.jobs (id, job_type, job) VALUES ('01J00000000000000000000001', 'from_the_future', '{}'),
             ('01J00000000000000000000002', 'scripted', 'no JSON'), ('not a ULID', 'scripted', '{\"nam\": 1}')",
        )
        .await;
    harness.enqueue("good", &[Step::Done]).await;
    let running = harness.start_worker(&scripted, FAST);
    harness
        .wait_until(
            "all scripted jobs have ended",
            "NOT EXISTS (SELECT FROM apalis.jobs WHERE job_type = 'scripted' AND status NOT IN ('Done', 'Killed'))",
        )
        .await;
    running.stop().await;
    assert_eq!(harness.row("good").await.status, "Done");
    harness.wait_until(
            "two are dead with a reason, one is untouched",
            "(SELECT count(*) FROM apalis.jobs WHERE status = 'Killed' AND errors -> 0 ->> 'error' LIKE 'undecodable payload%') = 2
             AND (SELECT status = 'Pending' AND attempts = 0 FROM apalis.jobs WHERE job_type = 'from_the_future')",
        )
        .await;
}

/// The table has a million finished and a million scheduled jobs in addition to the due ones.
#[tokio::test]
async fn claims_read_only_what_they_claim() {
    const FULL: usize = 1_000_000;
    const DUE: usize = 2_000;
    let (harness, scripted) =
        (QueueHarness::start().await, ScriptedJobs::new(Policy { concurrency: 100, ..quick_policy() }));
    let begun = Instant::now();
    // One session, so that its own scans are counted before the worker starts. Without a log this takes half the time.
    let fill = format!(
        "ALTER TABLE apalis.jobs SET UNLOGGED;
         INSERT INTO apalis.jobs (id, job_type, job, status, run_at, priority, lock_by)
         SELECT '01' || lpad(n::text, 24, '0'), 'scripted', '{{\"name\": \"x\", \"steps\": []}}',
                CASE WHEN n <= {FULL} THEN 'Done' ELSE 'Pending' END,
                now() + CASE WHEN n <= 2 * {FULL} THEN interval '1 day' ELSE -interval '1 hour' END,
                n % 3 - 1, CASE WHEN n <= {FULL} THEN 'another worker' END
         FROM generate_series(1, 2 * {FULL} + {DUE}) AS n;
         -- Else the cleaner of the worker would count the waiting jobs, as it does a minute after their last count.
         INSERT INTO queue_depths (queue, counted_at, waiting, later, before)
         VALUES ('scripted', clock_timestamp(), 0, 0, 0);
         SELECT pg_stat_force_next_flush();"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&harness.pool).await.unwrap();
    let filled = begun.elapsed();
    let read = |what: &'static str| sqlx::query_scalar::<_, i64>(what).fetch_one(&harness.pool);
    let scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'jobs'";
    let scans_before = read(scans).await.unwrap();
    // A new table has no statistics. The plans must not need them.
    let begun = Instant::now();
    let running = harness.start_worker(&scripted, FAST);
    // The test does not query the table, because its own scans would be counted too.
    eventually("all due jobs have run", Duration::from_secs(20), async || scripted.runs().len() == DUE).await;
    let drained = begun.elapsed();
    running.stop().await;
    let written = format!("(SELECT n_tup_upd >= 2 * {DUE} FROM pg_stat_user_tables WHERE relname = 'jobs')");
    harness.wait_until("the worker's statistics have arrived", &written).await;
    let scans = read(scans).await.unwrap() - scans_before;
    let entries =
        read("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'jobs_ready'").await.unwrap();
    println!(
        "{} jobs inserted in {filled:.1?}; {DUE} of them drained in {drained:.2?}, reading {entries} index entries",
        2 * FULL + DUE,
    );
    assert_eq!(scans, 0, "the worker read whole tables");
    assert!(entries < 20 * i64::try_from(DUE).unwrap(), "{entries} entries of jobs_ready read for {DUE} claims");
}
