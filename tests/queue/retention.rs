//! Promise 14: jobs that ended long ago are deleted, and nothing else, without disturbing running work.

use std::time::{Duration, Instant};

use queue::{Retention, Timing};

use crate::harness::{
    eventually,
    queue_harness::{FAST, QueueHarness, ScriptedJobs, Step, quick_policy},
};

/// Cleans often. The ages at which rows are deleted are the shipped ones.
const OFTEN: Timing = Timing { retention: Retention { every: Duration::from_millis(50), ..FAST.retention }, ..FAST };

/// Jobs of different states and ages, whose ids are as old as they are.
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
async fn only_jobs_that_ended_long_ago_are_deleted() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    // By its id the job was enqueued 25 hours ago.
    let enqueued = std::time::UNIX_EPOCH.elapsed().unwrap() - Duration::from_secs(25 * 3600);
    let id = uuid::Uuid::from_u128(enqueued.as_millis() << 80);
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
    // Only one process cleans at a time. While another one holds the lock, no row is deleted.
    let mut other = harness.pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(x'006d696c6c726163'::bigint)").execute(&mut *other).await.unwrap();
    let running = harness.start_worker(&scripted, OFTEN);
    harness
        .wait_until(
            "the worker has started",
            "EXISTS (SELECT FROM apalis.workers WHERE last_seen > now() - interval '1 s')",
        )
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    harness.wait_until("all jobs are left", "(SELECT count(*) FROM apalis.jobs) = 13").await;
    other.rollback().await.unwrap();

    harness.wait_until("five jobs are deleted", "(SELECT count(*) FROM apalis.jobs) = 8").await;
    harness
        .wait_until("the old worker's row is deleted", "NOT EXISTS (SELECT FROM apalis.workers WHERE id = 'old')")
        .await;
    // Lets the cleaner run several more times.
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.stop().await;
    let left = "SELECT convert_from(job, 'UTF8') FROM apalis.jobs ORDER BY 1";
    let left: Vec<String> = sqlx::query_scalar(left).fetch_all(&harness.pool).await.unwrap();
    let expected = ["dead, young", "done, young", "running, old", "waiting, old"];
    assert_eq!(left, expected.map(|name| [format!("{name}0"), format!("{name}n")]).concat());
    let workers = "SELECT id FROM apalis.workers ORDER BY 1";
    let workers: Vec<String> = sqlx::query_scalar(workers).fetch_all(&harness.pool).await.unwrap();
    assert_eq!(workers, ["holds something", "young"], "the worker deleted its own row when it stopped");
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
    let running = harness.start_worker(&scripted, OFTEN);
    let old = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'another'";
    let begun = Instant::now();
    let (mut runs, mut slowest) = (0, Duration::ZERO);
    let mut left = OLD as i64;
    while left > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{left} left");
        let name = format!("job {runs}.");
        let sent = Instant::now();
        harness.enqueue(&name, &[Step::Done]).await;
        eventually("the job runs", Duration::from_secs(10), async || scripted.runs_of(&name) == 1).await;
        slowest = slowest.max(sent.elapsed());
        runs += 1;
        left = sqlx::query_scalar(old).fetch_one(&harness.pool).await.unwrap();
    }
    running.stop().await;
    println!(
        "{OLD} rows deleted in {:.1?}; meanwhile {runs} jobs ran, the slowest started after {slowest:.1?}",
        begun.elapsed()
    );
    assert!(slowest < Duration::from_secs(2), "a job waited {slowest:?}");
}

/// Two processes in the hour that begins 15 days ago, one at noon yesterday and in the present minute, and an hour that is
/// too old.
const MINUTES: &str = "
    WITH base AS (SELECT date_trunc('hour', now() - interval '15 days', 'UTC') AS old,
                         date_trunc('day', now(), 'UTC') - interval '12 hours' AS young),
         minutes AS (
             SELECT old + n * interval '1 minute' AS minute, process FROM base, generate_series(0, 59) AS n,
                    (VALUES ('w1'), ('w2')) AS processes (process)
             UNION ALL SELECT young, 'w1' FROM base
             UNION ALL SELECT date_trunc('minute', now()), 'w1'),
         hours AS (
             INSERT INTO queue_hours (queue, hour, enqueued, started, done, retried, snoozed, dead, cancelled, rescued, fenced,
                                      run_us, waits, runs)
             SELECT 'q', old - interval '401 days', 5, 5, 5, 0, 0, 0, 0, 0, 0, 1000, '{5,0}', '{5,0}' FROM base)
    INSERT INTO queue_minutes (queue, minute, process, enqueued, started, done, retried, snoozed, dead, cancelled, rescued,
                               fenced, run_us, waits, runs)
    SELECT 'q', minute, process, 3, 2, 1, 0, 0, 1, 0, 0, 0, 500, '{1,2}', '{0,1}' FROM minutes";

/// The hours of the queue with their sums.
const HOURS: &str =
    "SELECT string_agg(concat_ws(' ', enqueued, started, dead, run_us, waits, runs), '; ' ORDER BY hour)
                     FROM queue_hours WHERE queue = 'q'";

#[tokio::test]
async fn minutes_are_summed_by_hour_and_deleted_after_two_weeks() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.execute(MINUTES).await;
    let action = "INSERT INTO operator_actions (at, actor, via, action, target, reason, count)
                  VALUES (now() - interval '3 years', 'ada', 'cli', 'pause', 'q', 'for a look', 1)";
    harness.execute(action).await;
    let running = harness.start_worker(&scripted, OFTEN);
    harness.wait_until("old minutes are gone", "(SELECT count(*) = 2 FROM queue_minutes WHERE queue = 'q')").await;
    harness.wait_until("the old hour is gone", "(SELECT count(*) = 2 FROM queue_hours WHERE queue = 'q')").await;
    let sums: String = sqlx::query_scalar(HOURS).fetch_one(&harness.pool).await.unwrap();
    assert_eq!(sums, "360 240 120 60000 {120,240} {0,120}; 3 2 1 500 {1,2} {0,1}", "the present hour is not over");
    harness.wait_until("actions are never deleted", "(SELECT count(*) = 1 FROM operator_actions)").await;
    running.stop().await;
}

/// Replays of different states and ages. The old ones that have ended have 5,000 jobs each, more than one batch.
const REPLAYS: &str = "
    WITH kinds (name, state, ended) AS (VALUES
        ('done, old', 'done', interval '31 days'), ('stopped, old', 'stopped', '31 days'),
        ('done, young', 'done', '29 days'), ('running', 'running', NULL), ('paused', 'paused', NULL),
        ('watching', 'watching', NULL)),
    added AS (
        INSERT INTO replays (id, queue, rate, canary, stop_if_dead, max_jobs, state, created_at, ended_at)
        SELECT gen_random_uuid(), name, 1, 0, 1, 5000, state, now() - interval '60 days', now() - ended FROM kinds
        RETURNING id, queue)
    INSERT INTO replayed_jobs (replay, number, job)
    SELECT id, n, n::text FROM added, generate_series(1, CASE WHEN queue LIKE '%old' THEN 5000 ELSE 3 END) AS n";

#[tokio::test]
async fn replays_are_deleted_with_their_jobs_long_after_their_end() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    // The foreign key is checked at the end of the statement.
    harness.execute(REPLAYS).await;
    let running = harness.start_worker(&scripted, OFTEN);
    harness.wait_until("two replays are deleted", "(SELECT count(*) FROM replays) = 4").await;
    // Another pass of the cleaner has had the chance to delete the others.
    let expired = "INSERT INTO replays (id, queue, rate, canary, stop_if_dead, max_jobs, state, created_at, ended_at)
                   VALUES (gen_random_uuid(), 'expired', 1, 0, 1, 1, 'done', now() - interval '60 days', now() - interval '31 days')";
    harness.execute(expired).await;
    harness.wait_until("another pass has ended", "NOT EXISTS (SELECT FROM replays WHERE queue = 'expired')").await;
    running.stop().await;
    let left = "SELECT queue FROM replays ORDER BY 1";
    let left: Vec<String> = sqlx::query_scalar(left).fetch_all(&harness.pool).await.unwrap();
    assert_eq!(left, ["done, young", "paused", "running", "watching"]);
    harness.wait_until("the others keep their jobs", "(SELECT count(*) FROM replayed_jobs) = 12").await;
}

/// The server's clock was ahead when the present hour and a later one were summed.
#[tokio::test]
async fn an_hour_that_was_summed_too_early_keeps_no_other_hour_from_being_summed() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.execute(MINUTES).await;
    let early =
        "INSERT INTO queue_hours (queue, hour, enqueued, started, done, retried, snoozed, dead, cancelled, rescued,
                                          fenced, run_us, waits, runs)
                 SELECT 'q', date_trunc('hour', now(), 'UTC') + ahead, 1, 1, 1, 0, 0, 0, 0, 0, 0, 10, '{1,0}', '{1,0}'
                 FROM (VALUES (interval '0 hours'), ('5 hours')) AS hours (ahead)";
    harness.execute(early).await;
    let running = harness.start_worker(&scripted, OFTEN);
    let summed = "(SELECT count(*) = 2 FROM queue_hours WHERE queue = 'q' AND hour < now() AND enqueued IN (360, 3))";
    harness.wait_until("both hours are summed", summed).await;
    running.stop().await;
}

/// A rule of another program keeps two jobs, and another session has locked a third one.
const KEEP: &str = "
    CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a rule of the user'; END $$;
    CREATE TRIGGER keep BEFORE DELETE ON apalis.jobs FOR EACH ROW
    WHEN (OLD.id IN ('0000003', '0002500')) EXECUTE FUNCTION keep()";

#[tokio::test]
async fn a_job_that_cannot_be_deleted_keeps_nothing_else_from_being_cleaned() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness
        .execute(
            "INSERT INTO apalis.jobs (id, job_type, job, status, done_at)
             SELECT lpad(n::text, 7, '0'), 'another', '{}', 'Done', now() - interval '2 days'
             FROM generate_series(1, 5000) AS n",
        )
        .await;
    harness.execute(MINUTES).await;
    sqlx::raw_sql(KEEP).execute(&harness.pool).await.expect("a trigger");
    let mut other = harness.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM apalis.jobs WHERE id = '0000040' FOR UPDATE").execute(&mut *other).await.unwrap();

    let running = harness.start_worker(&scripted, OFTEN);
    let left = |ids: &str| format!("(SELECT string_agg(id, ' ' ORDER BY id) = '{ids}' FROM apalis.jobs)");
    harness.wait_until("the others are deleted", &left("0000003 0000040 0002500")).await;
    let summed = "(SELECT count(*) = 2 FROM queue_hours WHERE queue = 'q' AND enqueued IN (360, 3))";
    harness.wait_until("the hours are summed", summed).await;
    other.rollback().await.unwrap();
    harness.wait_until("the locked job is deleted by a later pass", &left("0000003 0002500")).await;
    running.stop().await;
}
