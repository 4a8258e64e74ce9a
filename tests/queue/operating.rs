//! Promises 9 and 13: an operator lists, cancels and replays jobs, and pauses queues.

use std::time::Duration;

use futures_util::future::join_all;
use queue::{
    CANCELLED, JobId, JobKinds, Operator, Policy, Replayable, Timing, Tx,
    filter::Filter,
    operator::{pauses::Pausing, replays::ReplayDeadLetters},
    status::{Cancelled, Replayed, State},
};
use runtime::error::Error;

use crate::harness::{
    eventually,
    queue_harness::{FAST, NEVER, QueueHarness, ScriptedJob, ScriptedJobs, Step, order, quick_policy},
};

const SOON: Duration = Duration::from_secs(10);

impl Replayable for ScriptedJob {
    /// Enqueues a witness job. Fails for the jobs named `refuses` and `breaks`, whose witness must then be rolled back;
    /// the second one by a statement that fails.
    async fn on_replay(self, _: ScriptedJobs, tx: &mut Tx) -> Result<(), Error> {
        let witness = Self { name: format!("witness of {}", self.name), steps: vec![Step::Done] };
        queue::enqueue(tx, &[queue::NewJob::of(&witness)?]).await?;
        if self.name == "breaks" {
            sqlx::query("SELECT 1 / 0").execute(&mut **tx).await?;
        }
        if self.name == "refuses" { Err(Error::Internal("refused".into())) } else { Ok(()) }
    }
}

fn operator(harness: &QueueHarness, scripted: &ScriptedJobs) -> Operator {
    Operator::new(
        &harness.pool.clone().into(),
        &harness.queue,
        JobKinds::default().kind::<ScriptedJob>(scripted.clone()),
    )
}

/// Enqueues a job and returns its id.
async fn enqueue(harness: &QueueHarness, name: &str, steps: &[Step], delay: Duration) -> String {
    let id = JobId::generate();
    harness.enqueue_as(name, steps, |job| job.id(id).after(delay)).await;
    id.to_string()
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = operator(&harness, &scripted);
    let id = enqueue(&harness, "job", &[Step::Done], NEVER).await;
    assert_eq!(operator.cancel(&id, &order()).await.unwrap(), Cancelled::AtOnce);
    let row = harness.row("job").await;
    let seen = (row.status.as_str(), row.attempts, row.failures, row.last_error.as_deref());
    assert_eq!(seen, ("Cancelled", 0, 0, Some(CANCELLED)));
    assert_eq!(scripted.discarded(), [("job".to_owned(), CANCELLED.to_owned())], "its discard hook ran");
    assert_eq!(operator.cancel(&id, &order()).await.unwrap(), Cancelled::Ended);
    assert_eq!(operator.cancel("unknown", &order()).await.unwrap(), Cancelled::NotFound);
}

/// Without heartbeats, only the notification can tell the worker.
#[tokio::test]
async fn a_running_job_is_cancelled_by_its_worker() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = operator(&harness, &scripted);
    let id = enqueue(&harness, "job", &[Step::Hang], Duration::ZERO).await;
    let other = enqueue(&harness, "other", &[Step::Wait], Duration::ZERO).await;
    let running = harness.start_worker(&scripted, Timing { heartbeat: NEVER, lease: NEVER * 3, ..FAST });
    eventually("both run", SOON, async || scripted.runs().len() == 2).await;
    harness
        .wait_until(
            "the worker listens",
            "EXISTS (SELECT FROM pg_stat_activity WHERE query = 'LISTEN \"millrace_jobs\"')",
        )
        .await;
    assert_eq!(operator.cancel(&id, &order()).await.unwrap(), Cancelled::Requested);
    harness.wait_until("the job is cancelled", "EXISTS (SELECT FROM apalis.jobs WHERE status = 'Cancelled')").await;
    let row = harness.row("job").await;
    assert_eq!((row.status.as_str(), row.attempts, row.last_error.as_deref()), ("Cancelled", 1, Some(CANCELLED)));
    assert_eq!(scripted.discarded(), [("job".to_owned(), CANCELLED.to_owned())]);
    assert_eq!(harness.row("other").await.status, "Running", "the other job still runs");
    scripted.gate.add_permits(1);
    running.stop().await;
    assert_eq!(operator.cancel(&other, &order()).await.unwrap(), Cancelled::Ended);
}

/// No worker gets a notification. The worker that runs the job later finds the request at its heartbeat, and the request
/// is deleted with the job's end.
#[tokio::test]
async fn a_cancellation_outlives_the_run_for_which_it_was_requested() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = operator(&harness, &scripted);
    let id = enqueue(&harness, "job", &[Step::Hang], Duration::ZERO).await;
    harness.execute("UPDATE apalis.jobs SET status = 'Running', lock_by = 'dead'").await;
    assert_eq!(operator.cancel(&id, &order()).await.unwrap(), Cancelled::Requested);
    harness.execute("UPDATE apalis.jobs SET status = 'Pending'").await;
    let running = harness.start_worker(&scripted, FAST);
    harness.wait_until("the job is cancelled", "EXISTS (SELECT FROM apalis.jobs WHERE status = 'Cancelled')").await;
    harness.wait_until("the request is deleted", "NOT EXISTS (SELECT FROM cancellations)").await;
    running.stop().await;
}

/// A worker that remembers the old request must not end the new run.
#[tokio::test]
async fn a_replay_withdraws_the_cancellation() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = operator(&harness, &scripted);
    let id = enqueue(&harness, "job", &[Step::Hang, Step::Wait], Duration::ZERO).await;
    let running = harness.start_worker(&scripted, Timing { heartbeat: NEVER, lease: NEVER * 3, ..FAST });
    eventually("the job runs", SOON, async || scripted.runs_of("job") == 1).await;
    harness
        .wait_until(
            "the worker listens",
            "EXISTS (SELECT FROM pg_stat_activity WHERE query = 'LISTEN \"millrace_jobs\"')",
        )
        .await;
    operator.cancel(&id, &order()).await.unwrap();
    harness.wait_until("the job is cancelled", "EXISTS (SELECT FROM apalis.jobs WHERE status = 'Cancelled')").await;
    assert_eq!(operator.replay(&id, &order()).await.unwrap(), Replayed::Replayed);
    eventually("the job runs again", SOON, async || scripted.runs_of("job") == 2).await;
    scripted.gate.add_permits(1);
    harness
        .wait_until(
            "the job is done",
            &format!("EXISTS (SELECT FROM apalis.jobs WHERE status = 'Done' AND id = '{id}')"),
        )
        .await;
    running.stop().await;
    let events = operator.show(&id).await.unwrap().expect("the job exists").events;
    let names: Vec<&str> = events.iter().map(|event| event.event).collect();
    assert_eq!(names[1..4], ["cancelled", "cancelled", "replayed"], "{events:?}");
    let [cancelled, aborted, replayed] = [1, 2, 3].map(|index| &*events[index].text);
    assert_eq!(cancelled, "cancelled by ada: the processor is down");
    assert!(aborted.starts_with("run 1 in ") && aborted.contains(" was aborted after "), "{aborted}");
    assert_eq!(replayed, "replayed by ada: the processor is down");
}

/// The process of a command ends before it would write counts.
#[tokio::test]
async fn the_cancellation_and_the_replay_of_a_job_are_counted_with_them() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = operator(&harness, &scripted);
    let id = enqueue(&harness, "job", &[Step::Done], NEVER).await;
    let refuses = enqueue(&harness, "refuses", &[Step::Done], NEVER).await;
    let counts = async || -> (i64, i64) {
        let counts = "SELECT coalesce(sum(enqueued), 0)::bigint, coalesce(sum(cancelled), 0)::bigint
                      FROM queue_minutes WHERE queue = 'scripted' AND process = 'operators'";
        sqlx::query_as(counts).fetch_one(&harness.pool).await.unwrap()
    };
    for job in [&id, &refuses] {
        assert_eq!(operator.cancel(job, &order()).await.unwrap(), Cancelled::AtOnce);
    }
    assert_eq!(counts().await, (0, 2));
    assert_eq!(operator.cancel(&id, &order()).await.unwrap(), Cancelled::Ended);
    assert_eq!(operator.replay(&id, &order()).await.unwrap(), Replayed::Replayed);
    assert!(operator.replay(&refuses, &order()).await.is_err());
    assert_eq!(counts().await, (1, 2), "what was refused is not counted");
}

#[tokio::test]
async fn a_dead_job_is_replayed_with_its_record_or_not_at_all() {
    let (harness, scripted) =
        (QueueHarness::start().await, ScriptedJobs::new(Policy { attempts: 2, ..quick_policy() }));
    let operator = operator(&harness, &scripted);
    let id = enqueue(&harness, "job", &[Step::Fail, Step::Fail, Step::Fail, Step::Done], Duration::ZERO).await;
    let refuses = enqueue(&harness, "refuses", &[Step::Reject], Duration::ZERO).await;
    harness.run_all(&scripted).await;
    assert_eq!(operator.dead("scripted", None).await.unwrap().len(), 2);
    let found = operator.dead("scripted", Some("in run")).await.unwrap();
    assert_eq!(found.iter().map(|job| &job.id).collect::<Vec<_>>(), [&id], "found by a part of its error");
    assert!(operator.dead("another", None).await.unwrap().is_empty());
    assert_eq!(operator.replay(&id, &order()).await.unwrap(), Replayed::Replayed);
    assert_eq!(operator.replay(&id, &order()).await.unwrap(), Replayed::NotDead);
    assert_eq!(operator.replay("unknown", &order()).await.unwrap(), Replayed::NotFound);
    assert!(operator.replay(&refuses, &order()).await.is_err());
    harness.run_all(&scripted).await;
    let row = harness.row("job").await;
    // The replay reset the attempts, otherwise the third failure would have been the last one. It kept the history.
    assert_eq!((row.status.as_str(), row.attempts, row.failures, row.errors), ("Done", 4, 1, 3));
    assert_eq!(harness.row("refuses").await.status, "Killed");
    assert_eq!((scripted.runs_of("witness of job"), scripted.runs_of("witness of refuses")), (1, 0));
}

#[tokio::test]
async fn no_worker_claims_from_a_paused_queue_until_it_is_resumed() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = operator(&harness, &scripted);
    let running = harness.start_worker(&scripted, Timing { poll: NEVER, ..FAST });
    harness.enqueue("first", &[Step::Done]).await;
    // Its result is written after its run.
    harness.wait_until("the first is done", "(SELECT status = 'Done' FROM apalis.jobs)").await;
    assert_eq!(operator.pause("scripted", None, &order()).await.unwrap(), Pausing::Paused);
    let id = enqueue(&harness, "second", &[Step::Done], Duration::ZERO).await;
    // After two heartbeats the worker has received every notification.
    harness.wait_until_idle().await;
    harness.wait_until_idle().await;
    assert_eq!(scripted.runs_of("second"), 0, "claimed from a paused queue");
    let details = operator.show(&id).await.unwrap().unwrap();
    assert_eq!(details.why, "its queue is paused: the processor is down");
    let queues = operator.queues().await.unwrap();
    assert_eq!(queues.len(), 1);
    let queue = &queues[0];
    let seen = (&*queue.name, queue.reason.as_deref(), queue.workers, queue.waiting, queue.due, queue.recently_done);
    assert_eq!(seen, ("scripted", Some("the processor is down"), 1, 1, 1, 1));
    // No poll can find the job, so that only the notification of the resumption starts it.
    assert!(operator.resume("scripted", &order()).await.unwrap());
    eventually("the second has run", SOON, async || scripted.runs_of("second") == 1).await;
    assert!(!operator.resume("scripted", &order()).await.unwrap(), "the queue was no longer paused");
    running.stop().await;
}

#[tokio::test]
async fn jobs_are_listed_by_queue_and_state_page_by_page() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = operator(&harness, &scripted);
    for n in 0..5 {
        enqueue(&harness, &format!("done {n}"), &[Step::Done], Duration::ZERO).await;
    }
    let dead = enqueue(&harness, "dead", &[Step::Reject], Duration::ZERO).await;
    harness.run_all(&scripted).await;
    let waiting = enqueue(&harness, "waiting", &[Step::Done], NEVER).await;
    let ids = async |state: Option<State>, queue: &str, before: Option<String>, limit: u32| {
        let filter = Filter { queue: Some(queue.into()), state, before, ..Filter::default() };
        let jobs = operator.list(&filter, limit).await.unwrap().jobs;
        jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(Some(State::Dead), "scripted", None, 10).await, [&*dead]);
    assert_eq!(ids(Some(State::Waiting), "scripted", None, 10).await, [&*waiting]);
    assert!(ids(Some(State::Running), "scripted", None, 10).await.is_empty());
    assert!(ids(None, "another", None, 10).await.is_empty());
    let all = ids(None, "scripted", None, 10).await;
    assert!(all.len() == 7 && all.is_sorted_by(|a, b| a > b), "newest first: {all:?}");
    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let page = ids(None, "scripted", before.clone(), 3).await;
        let Some(last) = page.last() else { break };
        before = Some(last.clone());
        pages.extend(page);
    }
    assert_eq!(pages, all, "every job is on exactly one page");

    let details = operator.show(&dead).await.unwrap().unwrap();
    assert_eq!((details.job.state, details.job.last_error.as_deref()), (State::Dead, Some("rejected")));
    assert_eq!(details.payload["name"], "dead");
    assert_eq!(details.errors[0]["error"], "rejected");
    // A worker that stops has one second to delete its row. A row that remains is live until the lease has expired.
    eventually("no worker is live", SOON * 6, async || operator.queues().await.unwrap()[0].workers == 0).await;
    let details = operator.show(&waiting).await.unwrap().unwrap();
    assert_eq!((details.job.state, &*details.why), (State::Waiting, "no live worker runs its queue"));
    assert!(details.job.due_in_seconds > 3500.0);
    assert!(operator.show("unknown").await.unwrap().is_none());
}

#[tokio::test]
async fn a_dead_job_is_not_replayed_while_a_live_job_has_its_key() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue_as("dead", &[Step::Reject], |job| job.unique("key")).await;
    harness.run_all(&scripted).await;
    let dead: String = sqlx::query_scalar("SELECT id FROM apalis.jobs").fetch_one(&harness.pool).await.unwrap();
    let live = JobId::generate();
    harness.enqueue_as("live", &[Step::Done], |job| job.id(live).unique("key")).await;
    let operator = Operator::new(&harness.pool.clone().into(), &harness.queue, JobKinds::default());
    assert_eq!(operator.replay(&dead, &order()).await.unwrap(), Replayed::KeyTaken);
    let checks = operator.why(&dead).await.unwrap().expect("it exists").checks;
    assert_eq!(checks.last().unwrap().fix, Some(format!("millrace why {live}")), "{checks:?}");
    assert_eq!(harness.row("dead").await.status, "Killed");
    harness.run_all(&scripted).await;
    assert_eq!(operator.replay(&dead, &order()).await.unwrap(), Replayed::Replayed, "its key is free again");
}

/// One job dies; a waiting and a running job are cancelled. Only the first is a dead letter.
#[tokio::test]
async fn a_cancelled_job_is_not_a_dead_letter() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = operator(&harness, &scripted);
    let dead = enqueue(&harness, "dead", &[Step::Reject], Duration::ZERO).await;
    let runs = enqueue(&harness, "runs", &[Step::Hang, Step::Done], Duration::ZERO).await;
    let waits = enqueue(&harness, "waits", &[Step::Done], NEVER).await;
    let running = harness.start_worker(&scripted, FAST);
    eventually("the job runs", SOON, async || scripted.runs_of("runs") == 1).await;
    operator.cancel(&runs, &order()).await.unwrap();
    operator.cancel(&waits, &order()).await.unwrap();
    harness.wait_until("both are cancelled", "(SELECT count(*) FROM apalis.jobs WHERE status = 'Cancelled') = 2").await;
    harness.wait_until("both are counted", "(SELECT cancelled = 2 FROM queues WHERE name = 'scripted')").await;
    // Results are written independently of each other, so that the first job may die after both cancellations.
    harness.wait_until("the first is dead", "EXISTS (SELECT FROM apalis.jobs WHERE status = 'Killed')").await;
    let found = operator.dead("scripted", None).await.unwrap();
    assert_eq!(found.iter().map(|job| &job.id).collect::<Vec<_>>(), [&dead]);
    let filter = Filter { state: Some(State::Cancelled), ..Filter::default() };
    let listed = operator.list(&filter, 10).await.unwrap().jobs;
    assert_eq!(listed.iter().map(|job| &job.id).collect::<Vec<_>>(), [&waits, &runs]);
    assert_eq!(operator.queues().await.unwrap()[0].dead, 1);
    assert!(operator.show(&waits).await.unwrap().unwrap().why.contains("an operator cancelled it"));
    assert_eq!(operator.cancel(&waits, &order()).await.unwrap(), Cancelled::Ended);
    // A cancelled job can be replayed by its id.
    assert_eq!(operator.replay(&runs, &order()).await.unwrap(), Replayed::Replayed);
    eventually("the job runs again", SOON, async || scripted.runs_of("runs") == 2).await;
    running.stop().await;
}

#[tokio::test]
async fn the_reason_why_a_job_does_not_run_is_reported() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = operator(&harness, &scripted);
    let snooze = Step::SnoozeBecause(3_600_000, "the processor returned 503".into());
    let snoozed = enqueue(&harness, "snoozed", &[snooze], Duration::ZERO).await;
    let failed = enqueue(&harness, "failed", &[Step::FailWithDelay(3_600_000)], Duration::ZERO).await;
    let running = harness.start_worker(&scripted, FAST);
    harness
        .wait_until(
            "both wait again",
            "(SELECT count(*) FROM apalis.jobs WHERE status = 'Pending' AND attempts = 1) = 2",
        )
        .await;
    let why = async |id: &str| operator.show(id).await.unwrap().unwrap().why;
    assert_eq!(why(&snoozed).await, "its last run snoozed it: the processor returned 503");
    assert_eq!(why(&failed).await, "it failed 1 times and waits for its next attempt");
    // Every claim fails in the database although every slot is free.
    harness
        .execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN RAISE EXCEPTION 'no claims today'; END $$",
        )
        .await;
    harness
        .execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON apalis.jobs FOR EACH ROW WHEN (NEW.status = 'Running')
             EXECUTE FUNCTION refuse()",
        )
        .await;
    let due = enqueue(&harness, "due", &[Step::Done], Duration::ZERO).await;
    eventually("the failing claims are reported", SOON, async || {
        let why = why(&due).await;
        why.contains("the claims of 1 of 1 workers fail in the database") && why.contains("no claims today")
    })
    .await;
    let queue = operator.queues().await.unwrap().remove(0);
    assert!(queue.failing_workers == 1 && queue.claim_error.is_some_and(|error| error.contains("no claims today")));
    harness.execute("DROP TRIGGER refuse ON apalis.jobs").await;
    eventually("the job runs", SOON, async || scripted.runs_of("due") == 1).await;
    eventually("no claim fails any more", SOON, async || operator.queues().await.unwrap()[0].failing_workers == 0)
        .await;
    // A missing worker is reported, also after the job was cancelled.
    harness
        .execute(&format!("UPDATE apalis.jobs SET status = 'Running', lock_by = 'gone' WHERE id = '{snoozed}'"))
        .await;
    running.stop().await;
    assert!(why(&snoozed).await.starts_with("its worker is gone"));
    operator.cancel(&snoozed, &order()).await.unwrap();
    assert!(why(&snoozed).await.starts_with("its worker is gone"));
}

/// The discard of each of these jobs needs a session of the pool in which its cancellation holds one.
#[tokio::test]
async fn cancellations_leave_a_session_for_what_they_discard() {
    let harness = QueueHarness::start().await;
    let pool = harness.database.pool("operator", 2);
    let operator = Operator::new(&pool, &queue::Queue::start(pool.clone()), JobKinds::default());
    let job = |_| queue::NewJob::of(&ReplayDeadLetters { replay: uuid::Uuid::now_v7() }).unwrap();
    let jobs: Vec<queue::NewJob> = (0..8).map(job).collect();
    let mut tx = harness.queue.begin().await.unwrap();
    let ids = queue::enqueue(&mut tx, &jobs).await.unwrap();
    tx.commit().await.unwrap();
    let cancel = |id: &JobId| {
        let (operator, id) = (operator.clone(), id.to_string());
        async move { operator.cancel(&id, &order()).await.unwrap() }
    };
    let cancelled = tokio::time::timeout(SOON, join_all(ids.iter().map(cancel))).await.expect("no session is missing");
    assert_eq!(cancelled, [Cancelled::AtOnce; 8]);
}
