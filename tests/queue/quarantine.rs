//! Promise 8: crashes are counted apart from errors, and a job during which three workers in a row died is not run again.

use std::time::Duration;

use jobs::queue::Policy;

use crate::harness::{
    eventually,
    queue_harness::{FAST, QueueHarness, RunningWorker, ScriptedJobs, Step, quick_policy},
};

const SOON: Duration = Duration::from_secs(10);

/// The job's worker dies, as far as the database can tell; answers when it was taken back.
async fn die(harness: &QueueHarness, nth: i32) {
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
    // From the second on they are spread over some seconds, which nobody here has.
    harness.execute("UPDATE apalis.jobs SET run_at = now() WHERE status = 'Pending'").await;
}

async fn gone(running: RunningWorker) {
    running.abort().await;
}

#[tokio::test]
async fn three_dead_workers_set_a_job_aside_with_the_evidence() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("killer", &[Step::Hang]).await;
    let running = harness.worker(&scripted, FAST);
    for nth in 1..=3 {
        let runs = usize::try_from(nth).unwrap();
        eventually("it runs", SOON, async || scripted.runs_of("killer") == runs).await;
        die(&harness, nth).await;
    }
    harness.wait_until("it is dead", "(SELECT status = 'Killed' FROM apalis.jobs)").await;
    gone(running).await;
    let row = harness.row("killer").await;
    assert_eq!((scripted.runs_of("killer"), row.crashes, row.attempts), (3, 3, 4), "never run a fourth time");
    let reason = "quarantined: a worker died during 3 of its runs".to_owned();
    assert_eq!(row.last_error.as_ref(), Some(&reason));
    assert_eq!(scripted.discarded(), [("killer".to_owned(), reason)], "it could record its own end");
    let evidence: Vec<(String, i32, String)> = sqlx::query_as(
        "SELECT entry ->> 'worker', (entry ->> 'run')::int, entry ->> 'error'
         FROM apalis.jobs, jsonb_array_elements(errors) AS entry LIMIT 3",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    let expected = (1..=3).map(|nth| (format!("dead {nth}"), nth, "the worker died".to_owned()));
    assert_eq!(evidence, expected.collect::<Vec<_>>(), "each crash: which worker, which run");
}

#[tokio::test]
async fn two_dead_workers_cost_a_job_nothing_but_time() {
    let policy = Policy { attempts: 1, ..quick_policy() };
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(policy));
    harness.enqueue("unlucky", &[Step::Hang, Step::Hang, Step::Done]).await;
    // So many errors that something has to go.
    harness.execute("UPDATE apalis.jobs SET errors = (SELECT jsonb_agg(n) FROM generate_series(1, 10) AS n)").await;
    let running = harness.worker(&scripted, FAST);
    for nth in 1..=2 {
        let runs = usize::try_from(nth).unwrap();
        eventually("it runs", SOON, async || scripted.runs_of("unlucky") == runs).await;
        die(&harness, nth).await;
    }
    harness.wait_until("it is done", "(SELECT status = 'Done' FROM apalis.jobs)").await;
    gone(running).await;
    let row = harness.row("unlucky").await;
    assert_eq!((row.failures, row.crashes, row.errors), (0, 2, 10), "no attempt used up, and the newest errors kept");
    assert_eq!(row.last_error.as_deref(), Some("the worker died"));
}

/// What was held together with a job that kills workers must not share its fate.
#[tokio::test]
async fn companions_of_a_killer_part_from_it() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    for n in 0..10 {
        harness.enqueue(&format!("job {n}"), &[Step::Hang, Step::Done]).await;
    }
    harness.execute("UPDATE apalis.jobs SET crashes = 1").await;
    let running = harness.worker(&scripted, FAST);
    eventually("all run", SOON, async || scripted.runs().len() == 10).await;
    harness
        .execute(
            "WITH dead AS (
                 INSERT INTO apalis.workers (id, worker_type, storage_name, last_seen, lease)
                 VALUES ('dead', 'millrace', 'PostgreSQL', now() - interval '1 minute', '200 ms'))
             UPDATE apalis.jobs SET lock_by = 'dead' WHERE status = 'Running'",
        )
        .await;
    harness.wait_until("all are taken back", "(SELECT min(crashes) = 2 FROM apalis.jobs)").await;
    let spread = "(SELECT max(run_at) - min(run_at) > interval '300 milliseconds' FROM apalis.jobs)";
    harness.wait_until("they are due at different times", spread).await;
    gone(running).await;
}

/// On machines that go away every hour, a job that polls for days sees many workers die, and each run after that end well.
#[tokio::test]
async fn deaths_are_counted_anew_after_a_run_that_ended() {
    for (name, end) in [("snoozes", Step::Snooze(0)), ("fails", Step::FailWith("not yet".into()))] {
        let (harness, scripted) =
            (QueueHarness::start().await, ScriptedJobs::new(Policy { attempts: 5, ..quick_policy() }));
        harness.enqueue(name, &[Step::Hang, Step::Hang, end, Step::Hang, Step::Hang, Step::Done]).await;
        let running = harness.worker(&scripted, FAST);
        for (run, nth) in [(1, 1), (2, 2), (4, 1), (5, 2)] {
            eventually("it hangs", SOON, async || scripted.runs_of(name) == run).await;
            die(&harness, nth).await;
        }
        harness.wait_until("it is done", "(SELECT status = 'Done' FROM apalis.jobs)").await;
        gone(running).await;
        assert_eq!(scripted.runs_of(name), 6, "{name}");
    }
}

/// A run that is given back at a stop has not ended: a job that kills its workers must not get away with it.
#[tokio::test]
async fn deaths_stand_when_a_run_is_given_back() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("killer", &[Step::Hang]).await;
    harness.execute("UPDATE apalis.jobs SET crashes = 2").await;
    let running = harness.worker(&scripted, FAST);
    eventually("it runs", SOON, async || scripted.runs_of("killer") == 1).await;
    gone(running).await;
    let row = harness.row("killer").await;
    assert_eq!((row.status.as_str(), row.crashes), ("Pending", 2));
}

#[tokio::test]
async fn a_quarantined_job_that_cannot_be_given_up_yet_is_not_run() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("hard to discard", &[Step::Done]).await;
    harness.execute("UPDATE apalis.jobs SET crashes = 3").await;
    harness.run_all(&scripted).await;
    let row = harness.row("hard to discard").await;
    assert_eq!((row.status.as_str(), row.crashes, scripted.runs_of("hard to discard")), ("Killed", 3, 0));
    assert_eq!(scripted.discarded().len(), 2, "it was tried again");
}
