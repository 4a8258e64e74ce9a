//! What is known to have happened to a job.

use queue::{JobId, JobKinds, Operator, Policy, status::JobEvent};
use serde_json::Value;

use crate::harness::{
    eventually,
    queue_harness::{FAST, QueueHarness, ScriptedJobs, Step, quick_policy},
};

/// Enqueues a job. Returns its id.
async fn enqueue(harness: &QueueHarness, name: &str, steps: &[Step]) -> String {
    let id = JobId::generate();
    harness.enqueue_as(name, steps, |job| job.id(id)).await;
    id.to_string()
}

async fn events(harness: &QueueHarness, id: &str) -> Vec<JobEvent> {
    let operator = Operator::new(&harness.pool.clone().into(), &harness.queue, JobKinds::default());
    operator.show(id).await.unwrap().expect("the job exists").events
}

fn names(events: &[JobEvent]) -> Vec<&str> {
    events.iter().map(|event| event.event).collect()
}

#[tokio::test]
async fn a_job_shows_its_failures_and_snoozes() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let busy = || Step::SnoozeBecause(1, "busy".into());
    let id = enqueue(&harness, "job", &[Step::Fail, Step::Snooze(1), busy(), busy(), busy(), Step::Done]).await;
    harness.run_all(&scripted).await;
    let events = events(&harness, &id).await;
    assert_eq!(names(&events), ["enqueued", "run_failed", "snoozed", "snoozed", "done"], "{events:?}");
    assert!(events[1].text.starts_with("run 1 failed after ") && events[1].text.ends_with(": failed in run 1"));
    for detail in ["worker", "due", "started"] {
        assert!(events[1].details[detail].is_string(), "{detail}: {:?}", events[1]);
    }
    assert_eq!((&events[2].details["times"], &events[3].details["times"]), (&Value::Null, &3.into()), "{events:?}");
    assert!(events[3].text.starts_with("snoozed 3 times since ") && events[3].text.ends_with(": busy"), "{events:?}");
    let done = &events[4];
    assert!(done.text.starts_with("run 6 ended in ") && done.text.ends_with(" after it was due"), "{done:?}");
    assert!(done.details["due"].is_string() && done.details["started"].is_string(), "{done:?}");
}

#[tokio::test]
async fn a_job_that_succeeds_at_once_stores_no_event() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let id = enqueue(&harness, "job", &[Step::Done]).await;
    harness.run_all(&scripted).await;
    assert_eq!(names(&events(&harness, &id).await), ["enqueued", "done"]);
    harness
        .wait_until(
            "nothing is stored",
            "(SELECT events IS NULL AND errors IS NULL AND replays IS NULL FROM apalis.jobs)",
        )
        .await;
}

#[tokio::test]
async fn a_run_that_a_stopping_worker_gives_back_is_an_event() {
    // The job has the only slot. Otherwise a claim that is under way at the stop could take it once more.
    let policy = Policy { concurrency: 1, ..quick_policy() };
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(policy));
    let id = enqueue(&harness, "job", &[Step::Hang, Step::Hang]).await;
    let running = harness.start_worker(&scripted, FAST);
    eventually("the job runs", std::time::Duration::from_secs(20), async || {
        names(&events(&harness, &id).await) == ["enqueued", "running"]
    })
    .await;
    running.abort().await;
    assert_eq!(names(&events(&harness, &id).await), ["enqueued", "given_back"]);
}
