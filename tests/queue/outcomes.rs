//! Promises 6 and 7: the outcomes of a run, and the time of the next attempt.

use std::time::Duration;

use queue::{Policy, retry::Backoff};

use crate::harness::queue_harness::{FAST, QueueHarness, ScriptedJobs, Step, quick_policy};

/// The first panic of a process may print for seconds, if it looks up the names of a backtrace.
const DEADLINE: Duration = Duration::from_secs(5);
const MISSED: &str = "cancelled after its deadline of 5s";

#[tokio::test]
async fn every_outcome_is_recorded() {
    let policy = Policy { deadline: DEADLINE, ..quick_policy() };
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(policy));
    use Step::{Done, Fail, Hang, Panic, Reject, Snooze};
    /// Name, script, state, runs, failures, last error.
    type Case<'a> = (&'a str, &'a [Step], &'a str, i32, i32, Option<&'a str>);
    let cases: &[Case] = &[
        ("done", &[Done], "Done", 1, 0, None),
        ("second try", &[Fail, Done], "Done", 2, 1, Some("failed in run 1")),
        ("used up", &[Fail], "Killed", 3, 3, Some("failed in run 3")),
        ("rejected", &[Reject], "Killed", 1, 1, Some("rejected")),
        ("snoozed", &[Snooze(10), Snooze(10), Snooze(10), Snooze(10), Done], "Done", 5, 0, None),
        ("panics", &[Panic, Panic, Done], "Done", 3, 2, Some("panicked: a panic of the script")),
        ("hangs", &[Hang, Done], "Done", 2, 1, Some(MISSED)),
        (
            "snoozes and fails",
            &[Snooze(1), Fail, Snooze(1), Fail, Snooze(1), Fail],
            "Killed",
            6,
            3,
            Some("failed in run 6"),
        ),
    ];
    for (name, steps, ..) in cases {
        harness.enqueue(name, steps).await;
    }
    harness.run_all(&scripted).await;
    for (name, _, status, runs, failures, error) in cases {
        let row = harness.row(name).await;
        let seen = (row.status.as_str(), row.attempts, row.failures, row.last_error.as_deref());
        assert_eq!(seen, (*status, *runs, *failures, *error), "{name}");
        assert_eq!(row.errors, row.failures, "{name}: every failure is kept");
        assert_eq!(row.crashes, 0, "{name}");
        assert_eq!(scripted.runs_of(name), usize::try_from(*runs).unwrap(), "{name}");
    }
    let mut discarded = scripted.discarded();
    discarded.sort();
    let expected = [("rejected", "rejected"), ("snoozes and fails", "failed in run 6"), ("used up", "failed in run 3")];
    assert_eq!(
        discarded,
        expected.map(|(name, reason)| (name.to_owned(), reason.to_owned())),
        "each is discarded once"
    );
}

/// Another run may be under way, so a late run must not touch the record.
#[tokio::test]
async fn a_run_that_no_longer_holds_its_job_does_not_discard_it() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("late", &[Step::WaitThen(Box::new(Step::Reject))]).await;
    let running = harness.start_worker(&scripted, FAST);
    harness.wait_until("it runs", "EXISTS (SELECT FROM apalis.jobs WHERE status = 'Running')").await;
    harness
        .execute(
            "WITH other AS (
                 INSERT INTO apalis.workers (id, worker_type, storage_name, last_seen, lease)
                 VALUES ('other', 'millrace', 'PostgreSQL', now(), '1 hour'))
             UPDATE apalis.jobs SET lock_by = 'other', attempts = attempts + 1",
        )
        .await;
    scripted.gate.add_permits(1);
    // It ends when the result of the late run is dropped.
    running.stop().await;
    assert_eq!(scripted.discarded(), []);
    assert_eq!(harness.row("late").await.status, "Running");
}

/// What watches the runs is not in their tasks, and serves all jobs of a claim.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_misses_its_deadline_alone() {
    let policy = Policy { deadline: DEADLINE, ..quick_policy() };
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(policy));
    harness.enqueue("blocks", &[Step::Block(8000), Step::Done]).await;
    harness.enqueue("panics", &[Step::Panic, Step::Done]).await;
    harness.enqueue("done", &[Step::Done]).await;
    harness.run_all(&scripted).await;
    let expected = [
        ("blocks", 2, 1, Some(MISSED)),
        ("panics", 2, 1, Some("panicked: a panic of the script")),
        ("done", 1, 0, None),
    ];
    for (name, runs, failures, error) in expected {
        let row = harness.row(name).await;
        let seen = (row.status.as_str(), row.attempts, row.failures, row.last_error.as_deref());
        assert_eq!(seen, ("Done", runs, failures, error), "{name}");
    }
}

#[tokio::test]
async fn no_two_runs_share_a_token() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("job", &[Step::Snooze(1), Step::Fail, Step::Snooze(1), Step::Fail, Step::Done]).await;
    harness.run_all(&scripted).await;
    let tokens: Vec<i32> = scripted.runs().iter().map(|recorded| recorded.run.token).collect();
    assert_eq!(tokens, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_retry_waits_in_the_database() {
    let backoff = Backoff { base: Duration::from_secs(1000), cap: Duration::from_secs(1500) };
    let policy = Policy { backoff, concurrency: 12, ..quick_policy() };
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(policy));
    let after_the_gate = |step: Step| [Step::WaitThen(Box::new(step))];
    for n in 0..10 {
        harness.enqueue(&format!("jittered {n}"), &after_the_gate(Step::Fail)).await;
    }
    harness.enqueue("asked to wait", &after_the_gate(Step::FailWithDelay(5_000_000))).await;
    harness.enqueue("snoozed", &after_the_gate(Step::Snooze(7_000_000))).await;
    let running = harness.start_worker(&scripted, FAST);
    harness.wait_until("all run", "(SELECT count(*) FROM apalis.jobs WHERE status = 'Running') = 12").await;
    // One in a hundred jittered waits is shorter than ten seconds. While the queue is paused, no job runs again.
    let pause = "INSERT INTO queues (name, paused_at, reason) VALUES ('scripted', now(), 'a look at the due times')";
    assert_eq!(harness.execute(pause).await, 1);
    scripted.gate.add_permits(12);
    let waiting = "(SELECT count(*) FROM apalis.jobs WHERE status = 'Pending' AND attempts = 1) = 12";
    harness.wait_until("all wait again", waiting).await;
    running.stop().await;
    let due_in = |row: crate::harness::queue_harness::JobRow| row.due_in;
    let mut jittered = Vec::new();
    for n in 0..10 {
        jittered.push(due_in(harness.row(&format!("jittered {n}")).await));
    }
    assert!(jittered.iter().all(|wait| (-20.0..=1000.0).contains(wait)), "within the first step: {jittered:?}");
    // Ten random waits are all below a tenth of the range once in ten thousand million runs.
    assert!(jittered.iter().any(|wait| *wait > 100.0), "not all waits are short: {jittered:?}");
    let asked = due_in(harness.row("asked to wait").await);
    assert!((4980.0..=5000.0).contains(&asked), "a requested wait is a lower bound: {asked}");
    let snoozed = due_in(harness.row("snoozed").await);
    assert!((6980.0..=7000.0).contains(&snoozed), "{snoozed}");
}

#[tokio::test]
async fn only_the_newest_errors_are_kept() {
    let backoff = Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(1) };
    let (harness, scripted) =
        (QueueHarness::start().await, ScriptedJobs::new(Policy { attempts: 15, backoff, ..quick_policy() }));
    harness.enqueue("job", &[Step::Fail]).await;
    harness.run_all(&scripted).await;
    let row = harness.row("job").await;
    assert_eq!((row.failures, row.errors, row.last_error.as_deref()), (15, 10, Some("failed in run 15")));
}
