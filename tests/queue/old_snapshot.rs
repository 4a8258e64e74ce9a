//! Claims while an old snapshot keeps PostgreSQL from removing the index entries of earlier claims.

use std::time::Duration;

use queue::{Policy, Timing};
use sqlx::Connection;

use crate::harness::{
    eventually,
    queue_harness::{FAST, NEVER, QueueHarness, ScriptedJobs, Step, quick_policy},
};

const SOON: Duration = Duration::from_secs(30);

const ENTRIES: &str = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'jobs_ready'";

/// Without low-water marks, each claim would read the entries of all earlier jobs.
#[tokio::test]
async fn a_claim_does_not_read_the_entries_of_earlier_jobs() {
    const EARLIER: i64 = 5_000;
    const LATER: i64 = 40;
    let harness = QueueHarness::start().await;
    let scripted = ScriptedJobs::new(Policy { concurrency: 200, ..quick_policy() });
    let fill = format!(
        "INSERT INTO apalis.jobs (id, job_type, job, run_at)
         SELECT 'earlier-' || n, 'scripted', '{{\"name\": \"earlier\", \"steps\": []}}', now() - interval '1 hour'
         FROM generate_series(1, {EARLIER}) AS n"
    );
    harness.execute(&fill).await;
    let mut old = sqlx::PgConnection::connect_with(&harness.pool.connect_options()).await.unwrap();
    let mut snapshot = old.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    sqlx::query("SELECT count(*) FROM apalis.workers").execute(&mut *snapshot).await.unwrap();

    // No polls and no sweeps, so that only claims and what notifications cause are counted.
    let running = harness.start_worker(&scripted, Timing { poll: NEVER, ..FAST });
    let done = async |jobs: i64| {
        let updates = format!("(SELECT n_tup_upd >= {} FROM pg_stat_user_tables WHERE relname = 'jobs')", 2 * jobs);
        harness.wait_until("the worker's statistics have arrived", &updates).await;
        sqlx::query_scalar::<_, i64>(ENTRIES).fetch_one(&harness.pool).await.unwrap()
    };
    eventually("the earlier jobs have run", SOON, async || scripted.runs().len() == EARLIER as usize).await;
    harness.enqueue("first", &[Step::Done]).await;
    eventually("the first later job has run", SOON, async || scripted.runs_of("first") == 1).await;
    let before = done(EARLIER + 1).await;
    for n in 0..LATER {
        let name = format!("later {n}");
        harness.enqueue(&name, &[Step::Done]).await;
        eventually("it has run", SOON, async || scripted.runs_of(&name) == 1).await;
    }
    let read = done(EARLIER + 1 + LATER).await - before;
    running.stop().await;
    snapshot.rollback().await.unwrap();
    println!("{read} entries read for {LATER} jobs after {EARLIER} others");
    assert!(read < LATER * 500, "{read} entries read for {LATER} jobs");
}

/// A job may become visible below the mark, such as one whose transaction took long.
#[tokio::test]
async fn a_job_that_is_due_before_the_last_claimed_one_is_found_by_a_sweep() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let running = harness.start_worker(&scripted, FAST);
    for round in 0..3 {
        harness.enqueue(&format!("on time {round}"), &[Step::Done]).await;
        eventually("it has run", SOON, async || scripted.runs_of(&format!("on time {round}")) == 1).await;
        // Another program inserts these, without a notification. The last one is older than any mark can be.
        for age in ["2 seconds", "1 hour", "60 days"] {
            let name = format!("{age} {round}");
            harness
                .execute(&format!(
                    "INSERT INTO apalis.jobs (id, job_type, job, run_at)
                     VALUES ('{name}', 'scripted', '{{\"name\": \"{name}\", \"steps\": []}}', now() - interval '{age}')"
                ))
                .await;
            eventually("it has run", SOON, async || scripted.runs_of(&name) == 1).await;
        }
    }
    running.stop().await;
}
