//! Promise 14: what ended long ago is forgotten, and nothing else, while the work goes on.

use std::time::{Duration, Instant};

use jobs::queue::{Retention, Timing};

use crate::harness::{
    eventually,
    queue_harness::{FAST, QueueHarness, ScriptedJobs, Step, quick_policy},
};

/// Looks often; what counts as old is what is shipped.
const OFTEN: Timing = Timing { retention: Retention { every: Duration::from_millis(50), ..FAST.retention }, ..FAST };

/// Jobs of the given states and ages, their ids as old as they are; and workers.
const LEFTOVERS: &str = "
    WITH kinds (name, status, ended, worker) AS (VALUES
        ('done, old', 'Done', interval '25 hours', 'x'), ('done, young', 'Done', '23 hours', 'x'),
        ('dead, old', 'Killed', '31 days', 'x'), ('dead, young', 'Killed', '29 days', 'x'),
        ('waiting, old', 'Pending', NULL, NULL), ('running, old', 'Running', NULL, 'holds something'))
    INSERT INTO apalis.jobs (id, job_type, job, status, run_at, done_at, lock_by)
    SELECT form || lpad((row_number() OVER ())::text, 25, '0'), 'another', convert_to(name || form, 'UTF8'), status,
           now() + interval '1 day', now() - ended, worker
    FROM kinds, (VALUES ('0'), ('n')) AS forms (form)";

#[tokio::test]
async fn what_ended_long_ago_goes_and_nothing_else() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    // Its id says that it came 25 hours ago: nearly young.
    let came = std::time::UNIX_EPOCH.elapsed().unwrap() - Duration::from_secs(25 * 3600);
    let id = uuid::Uuid::from_u128(came.as_millis() << 80);
    harness.enqueue_as("yesterday", &[Step::Done], |job| job.id(id.into())).await;
    harness.execute("UPDATE apalis.jobs SET status = 'Done', done_at = now() - interval '24 hours 1 s'").await;
    harness.execute(LEFTOVERS).await;
    harness
        .execute(
            "INSERT INTO apalis.workers (id, worker_type, storage_name, last_seen, lease) VALUES
             ('old', 'millrace', 'PostgreSQL', now() - interval '25 hours', '15 s'),
             ('young', 'millrace', 'PostgreSQL', now() - interval '23 hours', '15 s'),
             ('holds something', 'millrace', 'PostgreSQL', now() - interval '25 hours', '1000 days')",
        )
        .await;
    // One process at a time: while another is at it, nothing happens.
    let mut other = harness.pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(x'006d696c6c726163'::bigint)").execute(&mut *other).await.unwrap();
    let running = harness.worker(&scripted, OFTEN);
    harness
        .wait_until("it has started", "EXISTS (SELECT FROM apalis.workers WHERE last_seen > now() - interval '1 s')")
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    harness.wait_until("all are there", "(SELECT count(*) FROM apalis.jobs) = 13").await;
    other.rollback().await.unwrap();

    harness.wait_until("five are gone", "(SELECT count(*) FROM apalis.jobs) = 8").await;
    harness.wait_until("a worker is gone", "NOT EXISTS (SELECT FROM apalis.workers WHERE id = 'old')").await;
    // As many more passes as there is time for.
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.stop().await;
    let left = "SELECT convert_from(job, 'UTF8') FROM apalis.jobs ORDER BY 1";
    let left: Vec<String> = sqlx::query_scalar(left).fetch_all(&harness.pool).await.unwrap();
    let expected = ["dead, young", "done, young", "running, old", "waiting, old"];
    assert_eq!(left, expected.map(|name| [format!("{name}0"), format!("{name}n")]).concat());
    let workers = "SELECT id FROM apalis.workers ORDER BY 1";
    let workers: Vec<String> = sqlx::query_scalar(workers).fetch_all(&harness.pool).await.unwrap();
    assert_eq!(workers, ["holds something", "young"], "and its own went with its stop");
}

#[tokio::test]
async fn work_goes_on_while_a_table_is_cleaned() {
    const OLD: usize = 100_000;
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness
        .execute(&format!(
            "INSERT INTO apalis.jobs (id, job_type, job, status, done_at)
             SELECT '00' || lpad(n::text, 24, '0'), 'another', '{{}}', 'Done', now() - interval '2 days'
             FROM generate_series(1, {OLD}) AS n"
        ))
        .await;
    let running = harness.worker(&scripted, OFTEN);
    let old = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'another'";
    let begun = Instant::now();
    let (mut runs, mut slowest) = (0, Duration::ZERO);
    let mut left = OLD as i64;
    while left > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{left} left");
        let name = format!("job {runs}.");
        let sent = Instant::now();
        harness.enqueue(&name, &[Step::Done]).await;
        eventually("it runs", Duration::from_secs(10), async || scripted.runs_of(&name) == 1).await;
        slowest = slowest.max(sent.elapsed());
        runs += 1;
        left = sqlx::query_scalar(old).fetch_one(&harness.pool).await.unwrap();
    }
    running.stop().await;
    println!(
        "{OLD} forgotten in {:.1?}; beside it {runs} jobs, the slowest begun after {slowest:.1?}",
        begun.elapsed()
    );
    assert!(slowest < Duration::from_secs(2), "a job had to wait {slowest:?}");
}
