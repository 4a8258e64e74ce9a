//! Promise 3: a due job starts by its notification, by its due time, or by a poll; each works without the other two.

use std::time::Duration;

use queue::Timing;

use crate::harness::{
    eventually,
    queue_harness::{FAST, NEVER, QueueHarness, ScriptedJobs, Step, quick_policy},
};

/// Much longer than any wake-up, much shorter than [`NEVER`].
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_notification_starts_a_due_job() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let worker = harness.start_worker(&scripted, Timing { poll: NEVER, ..FAST });
    harness.enqueue("first", &[Step::Done]).await;
    eventually("the first job has run", SOON, async || scripted.runs_of("first") == 1).await;
    harness.wait_until_idle().await;
    harness.enqueue("second", &[Step::Done]).await;
    eventually("the second job has run", SOON, async || scripted.runs_of("second") == 1).await;
    worker.stop().await;
}

/// Claims begin near the due time of the last claimed job, so a job with an earlier one would wait for a sweep.
#[tokio::test]
async fn a_notification_starts_a_job_whose_time_is_past() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let worker = harness.start_worker(&scripted, Timing { poll: NEVER, ..FAST });
    harness.enqueue("first", &[Step::Done]).await;
    eventually("the first job has run", SOON, async || scripted.runs_of("first") == 1).await;
    harness.wait_until_idle().await;
    let past = time::OffsetDateTime::now_utc() - Duration::from_secs(3600);
    harness.enqueue_as("plain", &[Step::Done], |job| job.at(past)).await;
    eventually("the plain job has run", SOON, async || scripted.runs_of("plain") == 1).await;
    harness.enqueue_as("unique", &[Step::Done], |job| job.at(past).unique("key")).await;
    eventually("the unique job has run", SOON, async || scripted.runs_of("unique") == 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_poll_finds_a_job_without_a_notification() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let worker = harness.start_worker(&scripted, FAST);
    harness.enqueue("first", &[Step::Done]).await;
    eventually("the first job has run", SOON, async || scripted.runs_of("first") == 1).await;
    harness.wait_until_idle().await;
    harness
        .execute("INSERT INTO apalis.jobs (id, job_type, job) VALUES ('x', 'scripted', '{\"name\": \"silent\", \"steps\": []}')")
        .await;
    eventually("the job without a notification has run", SOON, async || scripted.runs_of("silent") == 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_scheduled_job_starts_at_its_time() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let worker = harness.start_worker(&scripted, Timing { poll: NEVER, ..FAST });
    harness.enqueue("now", &[Step::Done]).await;
    eventually("the first job has run", SOON, async || scripted.runs_of("now") == 1).await;
    harness.wait_until_idle().await;
    harness.enqueue_as("later", &[Step::Done], |job| job.after(Duration::from_millis(400))).await;
    eventually("the later job has run", SOON, async || scripted.runs_of("later") == 1).await;
    worker.stop().await;
    let row = harness.row("later").await;
    assert!(row.due_in <= 0.0, "the job ran before its time: {row:?}");
}

/// Each job is due while the worker is still looking for the previous one.
#[tokio::test]
async fn each_job_of_a_series_starts_at_its_time() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let worker = harness.start_worker(&scripted, Timing { poll: NEVER, ..FAST });
    harness.wait_until_idle().await;
    for n in 1..=20 {
        harness.enqueue_as(&format!("job {n}"), &[Step::Done], |job| job.after(Duration::from_millis(n * 20))).await;
    }
    eventually("all have run", SOON, async || scripted.runs().len() == 20).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_loses_its_listener_reconnects_and_finds_missed_jobs() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let worker = harness.start_worker(&scripted, Timing { poll: NEVER, ..FAST });
    harness.enqueue("first", &[Step::Done]).await;
    eventually("the first job has run", SOON, async || scripted.runs_of("first") == 1).await;
    // A poll may have found the first job before the worker listens.
    let listens = "EXISTS (SELECT FROM pg_stat_activity
                           WHERE query = 'LISTEN \"millrace_jobs\"' AND datname = current_database())";
    harness.wait_until("the worker listens", listens).await;
    harness.wait_until_idle().await;
    let insert =
        "INSERT INTO apalis.jobs (id, job_type, job) VALUES ('x', 'scripted', '{\"name\": \"missed\", \"steps\": []}')";
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'millrace listener' AND datname = current_database()";
    assert_eq!(harness.execute(terminate).await, 1, "there is one listener");
    harness.execute(insert).await;
    eventually("the missed job has run", SOON, async || scripted.runs_of("missed") == 1).await;
    harness.enqueue("announced", &[Step::Done]).await;
    eventually("notifications are received again", SOON, async || scripted.runs_of("announced") == 1).await;
    worker.stop().await;
}
