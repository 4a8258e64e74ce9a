//! What operators see of queues and workers: counts by minute, the report of each worker, why a job does not run.

use std::time::Duration;

use queue::{
    FairKey, JobId, JobKinds, Operator, Policy,
    operator::{
        overview::ProblemKind,
        pauses::{PauseEnd, Pausing},
        why::Why,
    },
};
use time::OffsetDateTime;

use crate::harness::{
    eventually,
    queue_harness::{FAST, NEVER, QueueHarness, ScriptedJobs, Step, order, quick_policy},
};

const SOON: Duration = Duration::from_secs(20);

fn operator(harness: &QueueHarness) -> Operator {
    Operator::new(&harness.pool.clone().into(), &harness.queue, JobKinds::default())
}

async fn enqueue(harness: &QueueHarness, name: &str, steps: &[Step], delay: Duration) -> String {
    let id = JobId::generate();
    harness.enqueue_as(name, steps, |job| job.id(id).after(delay)).await;
    id.to_string()
}

async fn why(operator: &Operator, id: &str) -> Why {
    operator.why(id).await.unwrap().expect("the job exists")
}

#[tokio::test]
async fn runs_are_counted_by_minute_with_the_heartbeat() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    for n in 0..5 {
        harness.enqueue(&format!("done {n}"), &[Step::Done]).await;
    }
    harness.enqueue("retried", &[Step::Fail, Step::Done]).await;
    harness.enqueue("snoozed", &[Step::Snooze(1), Step::Done]).await;
    harness.enqueue("dead", &[Step::Reject]).await;
    let running = harness.start_worker(&scripted, FAST);
    let ended = "NOT EXISTS (SELECT FROM apalis.jobs WHERE status IN ('Pending', 'Running'))";
    harness.wait_until("every job has finished", ended).await;
    let totals =
        "(SELECT sum(started) = 10 AND sum(done) = 7 AND sum(retried) = 1 AND sum(snoozed) = 1 AND sum(dead) = 1
                          AND sum((SELECT sum(n) FROM unnest(waits) AS n)) = 10 AND sum(run_us) > 0
                   FROM queue_minutes WHERE queue = 'scripted' AND process LIKE '%-%')";
    // A worker that stops has one second to write its last counts.
    harness.wait_until("the counts are written", totals).await;
    running.stop().await;
    harness.wait_until("the enqueued jobs are counted", "(SELECT sum(enqueued) = 8 FROM queue_minutes)").await;
    let overview = operator(&harness).overview().await.unwrap();
    let queue = overview.queues.iter().find(|queue| queue.status.name == "scripted").expect("the queue");
    assert!(queue.out_per_second > 0.0 && queue.in_per_second > 0.0, "{queue:?}");
    assert_eq!((queue.dead_24h, queue.minutes.iter().map(|minute| minute.started).sum::<i64>()), (1, 10));
    assert!(queue.wait_p99_seconds.is_some() && queue.mean_run_seconds.is_some(), "{queue:?}");
    let dying = overview.problems.iter().find(|problem| problem.kind == ProblemKind::DYING).expect("a problem");
    assert_eq!(dying.text, "1 jobs of scripted died in 15 min: rejected");
    let group = dying.group.as_deref().expect("a group");
    assert_eq!(dying.link, format!("/board/dead/selection?queue=scripted&group={group}"));
    assert_eq!(dying.command, format!("millrace dead replay --queue scripted --group {group} --dry-run"));
}

#[tokio::test]
async fn a_worker_reports_what_it_runs_and_is_drained() {
    let (harness, scripted) =
        (QueueHarness::start().await, ScriptedJobs::new(Policy { concurrency: 3, ..quick_policy() }));
    let operator = operator(&harness);
    let running = harness.start_worker(&scripted, FAST);
    let name = running.worker.name.to_string();
    let id = enqueue(&harness, "held", &[Step::Wait], Duration::ZERO).await;
    eventually("the worker reports its run", SOON, async || {
        let workers = operator.workers().await.unwrap();
        let report = workers.first().and_then(|worker| worker.report.clone());
        report.is_some_and(|report| {
            // Its listener connects independently of its claims.
            let queue = report.queues.get("scripted");
            report.listening && queue.is_some_and(|queue| queue.running == 1 && queue.slots == 3)
        })
    })
    .await;
    let worker = operator.workers().await.unwrap().remove(0);
    let report = worker.report.clone().expect("a report");
    assert!(worker.live && report.listening && !report.draining && worker.running == 1, "{worker:?}");
    assert_eq!((worker.id.as_str(), report.pid), (&*name, std::process::id()));
    assert!(report.queues["scripted"].last_claim.is_some() && worker.claim_errors.is_empty(), "{worker:?}");
    let held: Vec<String> = operator.held_by(&name, 10).await.unwrap().into_iter().map(|job| job.id).collect();
    assert_eq!(held, [id]);
    assert!(!operator.drain_worker("unknown", &order()).await.unwrap());
    assert!(operator.drain_worker(&name, &order()).await.unwrap());
    eventually("the worker stops claiming", SOON, async || {
        let workers = operator.workers().await.unwrap();
        workers.iter().any(|worker| worker.report.as_ref().is_some_and(|report| report.draining))
    })
    .await;
    assert!(!running.shutdown.drain.is_cancelled(), "the rest of the process goes on");
    scripted.gate.add_permits(1);
    running.wait_for_end().await;
    assert_eq!(harness.row("held").await.status, "Done", "its run ended first");
    assert_eq!(operator.actions(&name, 10).await.unwrap()[0].action, "drain");
}

#[tokio::test]
async fn a_pause_ends_by_itself_and_an_unknown_queue_is_refused() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = operator(&harness);
    assert_eq!(operator.pause("unknown", None, &order()).await.unwrap(), Pausing::UnknownQueue);
    let running = harness.start_worker(&scripted, FAST);
    harness.wait_until_idle().await;
    // By the database's clock, which decides when a pause ends.
    let now: OffsetDateTime = sqlx::query_scalar("SELECT now()").fetch_one(&harness.pool).await.unwrap();
    let pause = async |end: PauseEnd| operator.pause("scripted", Some(end), &order()).await.unwrap();
    assert_eq!(pause(PauseEnd::At(now)).await, Pausing::EndIsPast);
    assert!(!operator.resume("scripted", &order()).await.unwrap(), "a refused pause changes nothing");
    assert_eq!(pause(PauseEnd::At(now + Duration::from_secs(3600))).await, Pausing::Paused);
    assert_eq!(pause(PauseEnd::After(time::Duration::HOUR)).await, Pausing::Paused);
    let remaining = "SELECT resume_at - now() BETWEEN interval '59 minutes' AND interval '1 hour' FROM queues";
    assert!(sqlx::query_scalar::<_, bool>(remaining).fetch_one(&harness.pool).await.unwrap());
    let id = enqueue(&harness, "waits", &[Step::Done], Duration::ZERO).await;
    harness.wait_until_idle().await;
    assert_eq!(why(&operator, &id).await.verdict, "its queue is paused by ada: the processor is down");
    assert_eq!(scripted.runs_of("waits"), 0);
    // The end comes.
    harness.execute("UPDATE queues SET resume_at = now()").await;
    eventually("the job runs", SOON, async || scripted.runs_of("waits") == 1).await;
    assert!(!operator.resume("scripted", &order()).await.unwrap(), "it is no longer paused");
    running.stop().await;
}

/// Twelve situations of a job, each with the verdict that an operator needs.
#[tokio::test]
async fn why_is_right_in_staged_situations() {
    let (harness, scripted) =
        (QueueHarness::start().await, ScriptedJobs::new(Policy { concurrency: 1, ..quick_policy() }));
    let operator = operator(&harness);
    let later = enqueue(&harness, "later", &[Step::Done], NEVER).await;
    let verdict = async |id: &str| why(&operator, id).await.verdict;
    // 1. Not due. Nothing but its time is in the way of the verdict.
    assert!(verdict(&later).await.starts_with("it is due in 3"), "{}", verdict(&later).await);
    // 2. No worker at all.
    let due = enqueue(&harness, "due", &[Step::WaitThen(Box::new(Step::Done))], Duration::ZERO).await;
    assert_eq!(verdict(&due).await, "no worker is alive");
    // 3. A worker of other queues.
    harness
        .execute(
            "INSERT INTO apalis.workers (id, worker_type, storage_name, layers, lease, last_seen, started_at)
                  VALUES ('other', 'millrace', 'PostgreSQL', 'mails', '1 hour', now(), now())",
        )
        .await;
    assert_eq!(verdict(&due).await, "1 workers are alive, and none of them runs the queue scripted");
    // 4. A worker that died.
    harness.execute("UPDATE apalis.workers SET last_seen = now() - interval '2 hours'").await;
    assert_eq!(verdict(&due).await, "no worker is alive");
    harness.execute("DELETE FROM apalis.workers").await;
    // 5. Running.
    let worker = harness.start_worker(&scripted, FAST);
    eventually("it runs", SOON, async || scripted.runs_of("due") == 1).await;
    assert_eq!(verdict(&due).await, "it is running");
    // 6. All slots are in use.
    let next = enqueue(&harness, "next", &[Step::Done], Duration::ZERO).await;
    let full = "all 1 slots are in use, and 0 jobs are ahead of it";
    eventually("the slots are reported", SOON, async || verdict(&next).await == full).await;
    eventually("its start is estimated", SOON, async || {
        let checks = why(&operator, &next).await.checks;
        checks.last().is_some_and(|check| check.ok && check.text.starts_with("its estimated start is in "))
    })
    .await;
    // 7. Its worker has been silent for more than half of its lease.
    harness.execute("UPDATE apalis.workers SET lease = '1 hour', last_seen = now() - interval '40 minutes'").await;
    let frozen = verdict(&due).await;
    // Some seconds more than 40 minutes if the machine stalls between the two statements.
    let silence =
        frozen.split_once("has been silent for ").and_then(|(_, rest)| rest.split_once(" s: if it is frozen"));
    let is_right = silence.is_some_and(|(seconds, _)| matches!(seconds.parse::<u32>(), Ok(2400..2460)));
    assert!(is_right || frozen == "it is running", "{frozen}");
    // 8. Snoozed by its handler. 9. Failed, waiting for its next attempt. 10. Dead. 11. Cancelled. 12. Done.
    scripted.gate.add_permits(1);
    eventually("the next one has run", SOON, async || harness.row("next").await.status == "Done").await;
    assert_eq!(verdict(&next).await, "it is done");
    let snoozed = enqueue(
        &harness,
        "snoozed",
        &[Step::SnoozeBecause(3_600_000, "the receiver is closed".into())],
        Duration::ZERO,
    )
    .await;
    let failed = enqueue(&harness, "failed", &[Step::FailWithDelay(3_600_000)], Duration::ZERO).await;
    let dead = enqueue(&harness, "dead", &[Step::Reject], Duration::ZERO).await;
    eventually("all have run", SOON, async || harness.row("dead").await.status == "Killed").await;
    eventually("it is snoozed", SOON, async || {
        verdict(&snoozed).await.ends_with("its last run snoozed it: the receiver is closed")
    })
    .await;
    eventually("it waits for its next attempt", SOON, async || {
        verdict(&failed).await.ends_with("it waits for attempt 2 of 3")
    })
    .await;
    let explained = why(&operator, &dead).await;
    assert_eq!(explained.verdict, "it is a dead letter: rejected");
    assert_eq!(explained.checks.last().unwrap().fix, Some(format!("millrace jobs replay {dead} --reason '…'")));
    operator.cancel(&later, &order()).await.unwrap();
    assert_eq!(verdict(&later).await, "an operator cancelled it");
    worker.stop().await;
}

#[tokio::test]
async fn why_says_whether_a_worker_can_take_over_the_job_of_a_dead_one() {
    let harness = QueueHarness::start().await;
    let operator = operator(&harness);
    let id = enqueue(&harness, "held", &[Step::Done], Duration::ZERO).await;
    harness.execute("UPDATE apalis.jobs SET status = 'Running', attempts = 1, lock_by = 'dead', lock_at = now()").await;
    let insert = async |worker: &str, queue: &str, seen: &str| {
        let insert = format!(
            "INSERT INTO apalis.workers (id, worker_type, storage_name, layers, lease, last_seen, started_at)
             VALUES ('{worker}', 'millrace', 'PostgreSQL', '{queue}', '10 minutes', now() - interval '{seen}', now())"
        );
        harness.execute(&insert).await;
    };
    let found = async || {
        let last = why(&operator, &id).await.checks.pop().expect("a check");
        (last.text, last.fix, operator.show(&id).await.unwrap().expect("the job").why)
    };
    let start = Some("start a worker: millrace worker".to_owned());
    let nowhere = "its worker is gone, and no live worker can take it over";
    let gone = "its worker dead is gone: no live worker can take the job over";
    assert_eq!(found().await, (gone.into(), start.clone(), nowhere.into()));
    insert("dead", "scripted", "1 hour").await;
    insert("other", "mails", "0 s").await;
    let (text, fix, explained) = found().await;
    assert!(text.starts_with("its worker dead has been silent for 3"), "{text}");
    assert!(text.ends_with(" s: no live worker can take the job over"), "{text}");
    assert_eq!((fix, &*explained), (start, nowhere));
    insert("live", "scripted", "0 s").await;
    let (text, fix, explained) = found().await;
    assert!(text.ends_with(" s: another worker takes the job over"), "{text}");
    assert!(fix.is_none() && explained.starts_with("its worker is gone: another worker takes it over"), "{explained}");
}

#[tokio::test]
async fn why_names_the_error_of_failing_claims() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = operator(&harness);
    let worker = harness.start_worker(&scripted, FAST);
    harness.wait_until_idle().await;
    // Every claim fails, while heartbeats and reads work.
    harness
        .execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF NEW.status = 'Running' THEN RAISE EXCEPTION 'no space left on device'; END IF; RETURN NEW; END $$",
        )
        .await;
    harness.execute("CREATE TRIGGER refuse BEFORE UPDATE ON apalis.jobs FOR EACH ROW EXECUTE FUNCTION refuse()").await;
    let id = enqueue(&harness, "due", &[Step::Done], Duration::ZERO).await;
    let claims_fail = "all their claims fail in the database";
    eventually("the error is named", SOON, async || {
        let verdict = why(&operator, &id).await.verdict;
        verdict.starts_with(claims_fail) && verdict.contains("no space left on device")
    })
    .await;
    let problems = operator.overview().await.unwrap().problems;
    assert!(problems[0].text.contains("cannot claim from scripted") && problems[0].worker.is_some(), "{problems:?}");
    harness.execute("DROP TRIGGER refuse ON apalis.jobs").await;
    eventually("it runs", SOON, async || scripted.runs_of("due") == 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_release_that_was_refused_is_recorded_with_a_later_heartbeat() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.execute("CREATE SEQUENCE refusals").await;
    harness
        .execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  PERFORM nextval('refusals'); RAISE EXCEPTION 'no space left on device'; END $$",
        )
        .await;
    harness.execute("CREATE TRIGGER refuse BEFORE INSERT ON worker_releases EXECUTE FUNCTION refuse()").await;
    let worker = harness.start_worker(&scripted, FAST);
    harness.wait_until("it is refused", "(SELECT is_called FROM refusals)").await;
    harness.execute("DROP TRIGGER refuse ON worker_releases").await;
    harness.wait_until("it is recorded", "EXISTS (SELECT FROM worker_releases)").await;
    worker.stop().await;
}

/// Enqueues a job of this key that waits for the gate, and returns its id.
async fn enqueue_for(harness: &QueueHarness, key: &str, name: &str) -> String {
    let id = JobId::generate();
    harness.enqueue_as(name, &[Step::Wait], |job| job.id(id).fair_key(FairKey::of(key))).await;
    id.to_string()
}

#[tokio::test]
async fn why_names_the_limit_of_a_key() {
    let harness = QueueHarness::start().await;
    let scripted = ScriptedJobs::new(Policy { per_key: Some(1), ..quick_policy() });
    let operator = operator(&harness);
    let worker = harness.start_worker(&scripted, FAST);
    enqueue_for(&harness, "acme", "first").await;
    eventually("the first job of the key runs", SOON, async || scripted.runs_of("first") == 1).await;
    let second = enqueue_for(&harness, "acme", "second").await;
    let third = enqueue_for(&harness, "acme", "third").await;
    let verdict = async |id: &str| why(&operator, id).await.verdict;
    let full = "its key is at its limit: 1 jobs of scripted run for it, of at most 1;";
    for (id, ahead) in [(&second, 0), (&third, 1)] {
        let expected = format!("{full} {ahead} jobs of its key are ahead of it");
        eventually(&expected, SOON, async || verdict(id).await == expected).await;
    }
    let other = enqueue_for(&harness, "beta", "other").await;
    eventually("a job of another key runs", SOON, async || verdict(&other).await == "it is running").await;
    let report = operator.workers().await.unwrap().remove(0).report.expect("a report");
    assert_eq!((report.queues["scripted"].per_key, report.queues["scripted"].fair), (Some(1), false));
    scripted.gate.add_permits(4);
    eventually("the limit lets it run", SOON, async || verdict(&third).await == "it is done").await;
    worker.stop().await;
}

#[tokio::test]
async fn why_names_the_turns_of_keys() {
    let harness = QueueHarness::start().await;
    let scripted = ScriptedJobs::new(Policy { concurrency: 1, fair: true, ..quick_policy() });
    let operator = operator(&harness);
    let worker = harness.start_worker(&scripted, FAST);
    enqueue_for(&harness, "acme", "running").await;
    eventually("the only slot is in use", SOON, async || scripted.runs_of("running") == 1).await;
    let first = enqueue_for(&harness, "acme", "first").await;
    let second = enqueue_for(&harness, "acme", "second").await;
    let other = enqueue_for(&harness, "beta", "other").await;
    for (id, ahead) in [(&first, 0), (&second, 1), (&other, 0)] {
        let turns = "all 1 slots are in use; keys with due jobs get them in turn: 2;";
        let expected = format!("{turns} {ahead} jobs of its key are ahead of it");
        eventually(&expected, SOON, async || why(&operator, id).await.verdict == expected).await;
    }
    scripted.gate.add_permits(4);
    eventually("every job is done", SOON, async || why(&operator, &second).await.verdict == "it is done").await;
    worker.stop().await;
}
