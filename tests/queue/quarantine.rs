//! Promise 8: crashes are counted separately from errors, and a job is quarantined after three consecutive crashes.

use std::time::Duration;

use queue::Policy;

use crate::harness::{
    eventually,
    queue_harness::{FAST, QueueHarness, ScriptedJobs, Step, quick_policy},
};

const SOON: Duration = Duration::from_secs(10);

/// Makes the job's worker look dead in the database, and waits until the job is rescued. Only the lease of the dead
/// worker is short: one of a second would give the statements of the live one a third of a second each.
async fn simulate_crash(harness: &QueueHarness, nth: i32) {
    harness
        .execute(&format!(
            "WITH dead AS (
                 INSERT INTO apalis.workers (id, worker_type, storage_name, last_seen, lease)
                 VALUES ('dead {nth}', 'millrace', 'PostgreSQL', now() - interval '1 minute', '200 ms')
                 ON CONFLICT (id) DO UPDATE SET last_seen = now())
             UPDATE apalis.jobs SET lock_by = 'dead {nth}' WHERE status = 'Running'"
        ))
        .await;
    harness.wait_until("the crash is counted", &format!("(SELECT min(crashes) = {nth} FROM apalis.jobs)")).await;
    // From the second crash on, rescued jobs are spread over some seconds. The test does not wait for that.
    harness.execute("UPDATE apalis.jobs SET run_at = now() WHERE status = 'Pending'").await;
}

#[tokio::test]
async fn a_job_is_quarantined_after_three_crashes_with_the_evidence() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("poison", &[Step::Hang]).await;
    let running = harness.start_worker(&scripted, FAST);
    for nth in 1..=3 {
        let runs = usize::try_from(nth).unwrap();
        eventually("the job runs", SOON, async || scripted.runs_of("poison") == runs).await;
        simulate_crash(&harness, nth).await;
    }
    harness.wait_until("the job is dead", "(SELECT status = 'Killed' FROM apalis.jobs)").await;
    running.abort().await;
    let row = harness.row("poison").await;
    assert_eq!((scripted.runs_of("poison"), row.crashes, row.attempts), (3, 3, 4), "the job never ran a fourth time");
    let reason = "quarantined: a worker died during 3 of its runs".to_owned();
    assert_eq!(row.last_error.as_ref(), Some(&reason));
    assert_eq!(scripted.discarded(), [("poison".to_owned(), reason)], "the job's discard hook ran");
    let evidence: Vec<(String, i32, String)> = sqlx::query_as(
        "SELECT entry ->> 'worker', (entry ->> 'run')::int, entry ->> 'error'
         FROM apalis.jobs, jsonb_array_elements(errors) AS entry LIMIT 3",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    let expected = (1..=3).map(|nth| (format!("dead {nth}"), nth, "the worker died".to_owned()));
    assert_eq!(evidence, expected.collect::<Vec<_>>(), "each crash is recorded with its worker and run");
}

#[tokio::test]
async fn two_crashes_use_up_no_attempt() {
    let policy = Policy { attempts: 1, ..quick_policy() };
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(policy));
    harness.enqueue("unlucky", &[Step::Hang, Step::Hang, Step::Done]).await;
    // The list of errors is full, so that the oldest must be dropped.
    harness.execute("UPDATE apalis.jobs SET errors = (SELECT jsonb_agg(n) FROM generate_series(1, 10) AS n)").await;
    let running = harness.start_worker(&scripted, FAST);
    for nth in 1..=2 {
        let runs = usize::try_from(nth).unwrap();
        eventually("the job runs", SOON, async || scripted.runs_of("unlucky") == runs).await;
        simulate_crash(&harness, nth).await;
    }
    harness.wait_until("the job is done", "(SELECT status = 'Done' FROM apalis.jobs)").await;
    running.abort().await;
    let row = harness.row("unlucky").await;
    assert_eq!(
        (row.failures, row.crashes, row.errors),
        (0, 2, 10),
        "no attempt is used up, and the newest errors are kept"
    );
    assert_eq!(row.last_error.as_deref(), Some("the worker died"));
}

/// Jobs that ran together with a job that kills workers must not be quarantined with it.
#[tokio::test]
async fn jobs_of_a_crashed_worker_are_rescued_at_different_times() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    for n in 0..10 {
        harness.enqueue(&format!("job {n}"), &[Step::Hang, Step::Done]).await;
    }
    harness.execute("UPDATE apalis.jobs SET crashes = 1").await;
    let running = harness.start_worker(&scripted, FAST);
    eventually("all run", SOON, async || scripted.runs().len() == 10).await;
    harness
        .execute(
            "WITH dead AS (
                 INSERT INTO apalis.workers (id, worker_type, storage_name, last_seen, lease)
                 VALUES ('dead', 'millrace', 'PostgreSQL', now() - interval '1 minute', '200 ms'))
             UPDATE apalis.jobs SET lock_by = 'dead' WHERE status = 'Running'",
        )
        .await;
    harness.wait_until("all jobs are rescued", "(SELECT min(crashes) = 2 FROM apalis.jobs)").await;
    let spread = "(SELECT max(run_at) - min(run_at) > interval '300 milliseconds' FROM apalis.jobs)";
    harness.wait_until("the jobs are due at different times", spread).await;
    running.abort().await;
}

/// On machines that disappear every hour, a job that polls for days sees many workers die, with successful runs between.
#[tokio::test]
async fn a_run_that_ends_resets_the_count_of_crashes() {
    for (name, end) in [("snoozes", Step::Snooze(0)), ("fails", Step::FailWith("not yet".into()))] {
        let (harness, scripted) =
            (QueueHarness::start().await, ScriptedJobs::new(Policy { attempts: 5, ..quick_policy() }));
        let end = Step::WaitThen(Box::new(end));
        harness.enqueue(name, &[Step::Hang, Step::Hang, end, Step::Hang, Step::Hang, Step::Done]).await;
        let running = harness.start_worker(&scripted, FAST);
        for (run, nth) in [(1, 1), (2, 2), (4, 1), (5, 2)] {
            eventually("the job hangs", SOON, async || scripted.runs_of(name) == run).await;
            simulate_crash(&harness, nth).await;
            // The third run resets the count, so it does not end before the test has seen the count.
            scripted.gate.add_permits(usize::from(run == 2));
        }
        harness.wait_until("the job is done", "(SELECT status = 'Done' FROM apalis.jobs)").await;
        running.abort().await;
        assert_eq!(scripted.runs_of(name), 6, "{name}");
    }
}

/// A run that is released at a stop has not ended. Otherwise a job that kills its workers could escape its quarantine.
#[tokio::test]
async fn a_released_run_does_not_reset_the_count_of_crashes() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("poison", &[Step::Hang]).await;
    harness.execute("UPDATE apalis.jobs SET crashes = 2").await;
    let running = harness.start_worker(&scripted, FAST);
    eventually("the job runs", SOON, async || scripted.runs_of("poison") == 1).await;
    running.abort().await;
    let row = harness.row("poison").await;
    assert_eq!((row.status.as_str(), row.crashes), ("Pending", 2));
}

#[tokio::test]
async fn a_quarantined_job_whose_discard_hook_fails_is_not_run() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("hard to discard", &[Step::Done]).await;
    harness.execute("UPDATE apalis.jobs SET crashes = 3").await;
    harness.run_all(&scripted).await;
    let row = harness.row("hard to discard").await;
    assert_eq!((row.status.as_str(), row.crashes, scripted.runs_of("hard to discard")), ("Killed", 3, 0));
    assert_eq!(scripted.discarded().len(), 2, "the discard hook was called again");
}
