//! Promise 10: a result that the database refuses, or whose row is locked by another session, delays no other result.

use std::time::Duration;

use queue::{Policy, retry::Backoff};

use crate::harness::{
    eventually,
    queue_harness::{FAST, QueueHarness, ScriptedJobs, Step, order, quick_policy},
};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_result_with_any_text_is_stored() {
    let (harness, scripted) =
        (QueueHarness::start().await, ScriptedJobs::new(Policy { attempts: 1, ..quick_policy() }));
    let bad = ["nul \0 and \0", &"x\0".repeat(1_000_000), &"😀".repeat(100_000), "\u{1}\u{7f}\\u0000\u{202e}\u{FFFF}"];
    let mut expected = Vec::new();
    for (n, text) in bad.into_iter().enumerate() {
        let text = text.to_owned();
        let steps = [
            (Step::FailWith(text.clone()), "Killed"),
            (Step::RejectWith(text.clone()), "Killed"),
            (Step::PanicWith(text.clone()), "Killed"),
            (Step::SnoozeBecause(u64::MAX, text), "Pending"),
        ];
        for (m, (step, status)) in steps.into_iter().enumerate() {
            expected.push((format!("text {n} {m}"), step, status));
        }
    }
    expected.push(("endless snooze".into(), Step::Snooze(u64::MAX), "Pending"));
    expected.push(("done".into(), Step::Done, "Done"));
    for (name, step, _) in &expected {
        harness.enqueue(name, std::slice::from_ref(step)).await;
    }
    // A decoder's error quotes the payload, including NUL characters.
    harness
        .execute(
            r#"INSERT INTO apalis.jobs (id, job_type, job) VALUES
               ('a', 'scripted', '{"name": "x", "steps": ["\\u0000"]}'), ('b', 'scripted', '{"\\u0000": 1}'),
               ('c', 'scripted', '\x00'), ('d', 'scripted', convert_to(repeat('[', 100000), 'UTF8'))"#,
        )
        .await;
    let running = harness.start_worker(&scripted, FAST);
    let ended = "NOT EXISTS (SELECT FROM apalis.jobs WHERE status = 'Running' OR status = 'Pending' AND attempts = 0)";
    harness.wait_until("every result is written", ended).await;
    running.stop().await;
    let dead = "DELETE FROM apalis.jobs WHERE length(id) = 1 AND status = 'Killed' AND attempts = 1";
    assert_eq!(harness.execute(dead).await, 4, "undecodable jobs are dead");
    for (name, _, status) in expected {
        let row = harness.row(&format!("{name}\",\"steps")).await;
        assert_eq!((row.status.as_str(), row.attempts), (status, 1), "{name}");
    }
}

/// The wait comes from a backoff, a `Retry-After` or the caller.
#[tokio::test]
async fn a_wait_of_any_length_is_stored() {
    let backoff = Backoff { base: Duration::MAX, cap: Duration::MAX };
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(Policy { backoff, ..quick_policy() }));
    harness.enqueue("fails", &[Step::Fail]).await;
    harness.enqueue("asked to wait", &[Step::FailWithDelay(u64::MAX)]).await;
    harness.enqueue_as("enqueued", &[Step::Done], |job| job.after(Duration::MAX)).await;
    let last = time::macros::datetime!(9999-12-31 23:59:59.999 +0);
    for (name, time) in [("last", last), ("first", time::macros::datetime!(-9999-01-01 0:00 +0))] {
        harness.enqueue_as(name, &[Step::Done], |job| job.at(time)).await;
    }
    let running = harness.start_worker(&scripted, FAST);
    harness
        .wait_until(
            "both failed jobs wait",
            "(SELECT count(*) FROM apalis.jobs WHERE failures = 1 AND status = 'Pending') = 2",
        )
        .await;
    harness.wait_until("the due job is done", "(SELECT count(*) FROM apalis.jobs WHERE status = 'Done') = 1").await;
    running.stop().await;
}

/// Constraints and triggers of other programs refuse a row: by its state, by an exception, by an invalid value.
#[tokio::test]
async fn a_refused_result_becomes_a_dead_letter_and_affects_no_other() {
    const JOBS: usize = 40;
    let trigger = |body: &str| {
        format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON apalis.jobs FOR EACH ROW
             WHEN (NEW.status IN ('Done', 'Pending') AND OLD.status = 'Running'
                   AND position('refused' IN convert_from(NEW.job, 'UTF8')) > 0)
             EXECUTE FUNCTION refuse()"
        )
    };
    for refusal in [
        "ALTER TABLE apalis.jobs ADD CONSTRAINT refuse
         CHECK (status NOT IN ('Done', 'Pending') OR attempts = 0 OR position('refused' IN convert_from(job, 'UTF8')) = 0)"
            .to_owned(),
        trigger("RAISE EXCEPTION 'not this one';"),
        trigger("PERFORM 1 / 0;"),
    ] {
        let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
        sqlx::raw_sql(sqlx::AssertSqlSafe(refusal.clone())).execute(&harness.pool).await.unwrap();
        for n in 0..JOBS {
            let (name, step) = match n {
                7 => ("refused when done".into(), Step::Done),
                8 => ("refused when it fails".into(), Step::Fail),
                9 => ("refused when it snoozes".into(), Step::Snooze(1)),
                _ => (format!("job {n}."), Step::Done),
            };
            harness.enqueue(&name, &[Step::WaitThen(Box::new(step))]).await;
        }
        let running = harness.start_worker(&scripted, FAST);
        let slots = scripted.policy.concurrency;
        eventually("every slot is occupied", SOON, async || scripted.runs().len() == slots).await;
        // More than one for each job, in case that a run is repeated on a busy machine.
        scripted.gate.add_permits(10 * JOBS);
        harness.wait_until("all have ended", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status IN ('Pending', 'Running'))")
            .await;
        running.stop().await;
        for name in ["refused when done", "refused when it fails", "refused when it snoozes"] {
            let row = harness.row(name).await;
            assert_eq!((row.status.as_str(), row.attempts), ("Killed", 1), "{name}: {refusal}");
            let error = row.last_error.unwrap_or_default();
            assert!(error.contains("refused to store the result"), "{name}: {error}");
        }
        let mut discarded: Vec<String> = scripted.discarded().into_iter().map(|(name, _)| name).collect();
        discarded.sort();
        assert_eq!(discarded, ["refused when done", "refused when it fails", "refused when it snoozes"], "{refusal}");
        harness.wait_until("all others are done", &format!("(SELECT count(*) FROM apalis.jobs WHERE status = 'Done') = {}", JOBS - 3))
            .await;
    }
}

/// An error that says nothing about rows: the results are written again later, and delay no other.
#[tokio::test]
async fn results_with_an_unknown_error_are_kept_and_delay_no_other() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    sqlx::raw_sql(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = 'MY001'; END $$;
         CREATE TRIGGER fail BEFORE UPDATE ON apalis.jobs FOR EACH ROW
         WHEN (NEW.status = 'Done' AND position('odd' IN convert_from(NEW.job, 'UTF8')) > 0) EXECUTE FUNCTION fail()",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    for n in 0..40 {
        harness.enqueue(&if n % 10 == 0 { format!("odd {n}") } else { format!("job {n}") }, &[Step::Done]).await;
    }
    let running = harness.start_worker(&scripted, FAST);
    let done = |jobs: usize| format!("(SELECT count(*) FROM apalis.jobs WHERE status = 'Done') = {jobs}");
    harness.wait_until("the others are done", &done(36)).await;
    assert!(harness.row("odd 0").await.status == "Running", "an unknown error buries no result");
    harness.execute("DROP TRIGGER fail ON apalis.jobs").await;
    harness.wait_until("all are done", &done(40)).await;
    running.stop().await;
    assert_eq!(scripted.runs().len(), 40, "no job ran again");
}

/// While its row is locked, the write of a result is deferred. It is refused only after that.
#[tokio::test]
async fn a_result_that_is_refused_after_its_row_was_locked_becomes_a_dead_letter() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    // A trigger, because it runs with the row locked; a CHECK refuses before the lock.
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON apalis.jobs FOR EACH ROW WHEN (NEW.status = 'Done') EXECUTE FUNCTION refuse()",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    harness.enqueue("refused", &[Step::Wait]).await;
    let running = harness.start_worker(&scripted, FAST);
    eventually("it runs", SOON, async || scripted.runs_of("refused") == 1).await;
    let mut other = harness.pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM apalis.jobs FOR UPDATE").fetch_all(&mut *other).await.unwrap();
    scripted.gate.add_permits(1);
    // The first write waits for the lock, and is cancelled by its time limit. The next one skips the row.
    let waits = "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
    harness.wait_until("the write waits for the lock", waits).await;
    harness.wait_until("the time limit has cancelled the write", &format!("NOT {waits}")).await;
    // Much longer than the pause before the next attempt, which defers the result.
    harness.wait_for_heartbeats(10).await;
    other.rollback().await.unwrap();
    harness.wait_until("the job is a dead letter", "EXISTS (SELECT FROM apalis.jobs WHERE status = 'Killed')").await;
    assert!(harness.row("refused").await.last_error.unwrap_or_default().contains("refused to store the result"));
    running.stop().await;
}

/// The row cannot even become a dead letter. It stays unchanged, and everything else continues, including a stop.
#[tokio::test]
async fn a_row_that_refuses_every_result_delays_no_other() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("stuck", &[Step::Done]).await;
    harness
        .execute(
            "ALTER TABLE apalis.jobs ADD CONSTRAINT stuck
             CHECK (attempts = 0 OR status = 'Running' OR position('stuck' IN convert_from(job, 'UTF8')) = 0)",
        )
        .await;
    let running = harness.start_worker(&scripted, FAST);
    eventually("the job has run", SOON, async || scripted.runs_of("stuck") == 1).await;
    for n in 0..20 {
        harness.enqueue(&format!("job {n}."), &[if n % 2 == 0 { Step::Done } else { Step::Reject }]).await;
    }
    harness
        .wait_until("all others have ended", "(SELECT count(*) = 20 FROM apalis.jobs WHERE done_at IS NOT NULL)")
        .await;
    harness.execute("ALTER TABLE apalis.jobs DROP CONSTRAINT stuck").await;
    harness
        .wait_until(
            "the job becomes a dead letter as soon as possible",
            "(SELECT count(*) = 21 FROM apalis.jobs WHERE done_at IS NOT NULL)",
        )
        .await;
    running.stop().await;
    assert_eq!(harness.row("stuck").await.status, "Killed");
}

#[tokio::test]
async fn rows_locked_by_another_session_delay_no_other_result() {
    let (harness, scripted) =
        (QueueHarness::start().await, ScriptedJobs::new(Policy { concurrency: 50, ..quick_policy() }));
    for n in 0..30 {
        let step = if n % 3 == 0 { Step::Reject } else { Step::Done };
        harness.enqueue(&format!("job {n}."), &[Step::WaitThen(Box::new(step))]).await;
    }
    let running = harness.start_worker(&scripted, FAST);
    eventually("all run", SOON, async || scripted.runs().len() == 30).await;
    let mut lock = harness.pool.begin().await.unwrap();
    let locked = "SELECT FROM apalis.jobs WHERE convert_from(job, 'UTF8') ~ 'job (6|7)\\.' FOR UPDATE";
    assert_eq!(sqlx::query(locked).execute(&mut *lock).await.unwrap().rows_affected(), 2);
    scripted.gate.add_permits(30);
    harness
        .wait_until("all others are written", "(SELECT count(*) FROM apalis.jobs WHERE done_at IS NOT NULL) = 28")
        .await;
    // While some rows are locked, new results are written without waiting for a time-out.
    for n in 30..60 {
        harness.enqueue(&format!("job {n}."), &[Step::Done]).await;
    }
    harness
        .wait_until("later results are written", "(SELECT count(*) FROM apalis.jobs WHERE done_at IS NOT NULL) = 58")
        .await;
    lock.rollback().await.unwrap();
    harness.wait_until("all are written", "(SELECT count(*) FROM apalis.jobs WHERE done_at IS NOT NULL) = 60").await;
    running.stop().await;
    for (name, status) in [("job 6.", "Killed"), ("job 7.", "Done")] {
        let row = harness.row(name).await;
        assert_eq!((row.status.as_str(), row.attempts), (status, 1), "{name}");
    }
    assert_eq!(scripted.runs().len(), 60, "each ran once");
}

/// The row that counts cancelled jobs is locked. This delays cancelled jobs, and no other result.
#[tokio::test]
async fn a_locked_count_of_cancelled_jobs_delays_no_other_result() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let operator = queue::Operator::new(&harness.pool.clone().into(), &harness.queue, queue::JobKinds::default());
    let ids: Vec<queue::JobId> = (0..3).map(|_| queue::JobId::generate()).collect();
    for (n, id) in ids.iter().enumerate() {
        harness.enqueue_as(&format!("cancelled {n}"), &[Step::Hang], |job| job.id(*id)).await;
    }
    let running = harness.start_worker(&scripted, FAST);
    eventually("all jobs run", SOON, async || scripted.runs().len() == 3).await;
    harness.execute("INSERT INTO queues (name) VALUES ('scripted')").await;
    let mut lock = harness.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM queues FOR UPDATE").execute(&mut *lock).await.unwrap();
    for id in &ids {
        operator.cancel(&id.to_string(), &order()).await.unwrap();
    }
    eventually("the cancelled runs have ended", SOON, async || scripted.discarded().len() == 3).await;
    for n in 0..30 {
        harness.enqueue(&format!("job {n}."), &[if n % 2 == 0 { Step::Done } else { Step::Reject }]).await;
    }
    harness
        .wait_until("all others have ended", "(SELECT count(*) = 30 FROM apalis.jobs WHERE done_at IS NOT NULL)")
        .await;
    lock.rollback().await.unwrap();
    harness
        .wait_until("the jobs are cancelled", "(SELECT count(*) = 3 FROM apalis.jobs WHERE status = 'Cancelled')")
        .await;
    harness.wait_until("the cancelled jobs are counted", "(SELECT cancelled = 3 FROM queues)").await;
    running.stop().await;
}
