//! Promises 4 and 5: leases, rescue, and fencing of late results.

use std::time::Duration;

use queue::Policy;

use crate::harness::{
    eventually,
    queue_harness::{FAST, QueueHarness, SHORT_LEASE, ScriptedJobs, Step, WATCHED_LEASE, quick_policy},
};

const SOON: Duration = Duration::from_secs(10);

/// A worker without a process holds all jobs, under a lease of 1 s.
async fn give_all_to_a_dead_worker(harness: &QueueHarness) {
    harness.execute("UPDATE apalis.jobs SET status = 'Running', lock_by = 'dead', attempts = 1").await;
    let insert = "INSERT INTO apalis.workers (id, worker_type, storage_name, last_seen, lease)
                  VALUES ('dead', 'millrace', 'PostgreSQL', now(), '1 s')";
    harness.execute(insert).await;
}

/// Four handlers block the two threads for longer than the lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_block_every_thread_lose_no_lease() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    for n in 0..4 {
        harness.enqueue(&format!("job {n}"), &[Step::Block(6000)]).await;
    }
    let running = harness.start_worker(&scripted, WATCHED_LEASE);
    let other = harness.start_worker(&scripted, WATCHED_LEASE);
    assert_ne!(running.worker.name, other.worker.name, "each worker has its own name");
    harness.wait_until("all are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
    running.stop().await;
    other.stop().await;
    for n in 0..4 {
        let row = harness.row(&format!("job {n}")).await;
        assert_eq!((row.attempts, row.crashes), (1, 0), "job {n} ran once");
    }
}

#[tokio::test]
async fn jobs_of_a_dead_worker_run_elsewhere() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("job", &[Step::Done]).await;
    harness
        .execute(
            "INSERT INTO apalis.workers (id, worker_type, storage_name, last_seen, lease) VALUES
             ('dead', 'millrace', 'PostgreSQL', now() - interval '1 minute', '1 s'),
             ('alive', 'millrace', 'PostgreSQL', now() - interval '1 hour', '1 h')",
        )
        .await;
    harness.execute("UPDATE apalis.jobs SET status = 'Running', lock_by = 'dead', attempts = 1").await;
    harness.enqueue("held", &[Step::Done]).await;
    harness
        .execute("UPDATE apalis.jobs SET status = 'Running', lock_by = 'alive', attempts = 1 WHERE status = 'Pending'")
        .await;
    let running = harness.start_worker(&scripted, SHORT_LEASE);
    harness.wait_until("the dead worker's job is done", "EXISTS (SELECT FROM apalis.jobs WHERE status = 'Done')").await;
    running.stop().await;
    let row = harness.row("job").await;
    assert_eq!((row.status.as_str(), row.attempts, row.failures, row.crashes), ("Done", 2, 0, 1));
    let held = harness.row("held").await;
    assert_eq!((held.status.as_str(), held.lock_by.as_deref()), ("Running", Some("alive")));
}

/// Counts are only for operators. A lock on their table delays no heartbeat and no rescue, and they are written once later.
#[tokio::test]
async fn a_lock_on_the_counts_delays_no_rescue() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("job", &[Step::Done]).await;
    give_all_to_a_dead_worker(&harness).await;
    let mut lock = harness.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE queue_minutes IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    // With its lease of 20 s the worker waits 6 s for the server's refusal, which comes after 0.5 s. After a wait that is too
    // short, counts are dropped, because they may have been written.
    let running = harness.start_worker(&scripted, FAST);
    eventually("the job runs while the table is locked", SOON, async || scripted.runs_of("job") == 1).await;
    // It never renews its lease.
    harness.execute("DELETE FROM apalis.workers WHERE id = 'dead'").await;
    harness.wait_for_heartbeats(3).await;
    lock.rollback().await.unwrap();
    let counted = "(SELECT sum(started) = 1 AND sum(done) = 1 AND sum(rescued) = 1 FROM queue_minutes)";
    harness.wait_until("all is counted", counted).await;
    running.stop().await;
    harness.wait_until("all is counted once", counted).await;
    assert_eq!(harness.row("job").await.crashes, 1);
}

/// The database counts what it refuses, because a sequence is not rolled back.
const REFUSE_ALL: &str = "
    CREATE SEQUENCE refusals;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM nextval('refusals'); RAISE EXCEPTION 'a rule of the user'; END $$;
    CREATE TRIGGER refuse BEFORE UPDATE ON apalis.jobs FOR EACH ROW
    WHEN (NEW.status = 'Pending') EXECUTE FUNCTION refuse()";

/// The cause is hardly one of the jobs, so none is left out for a minute.
#[tokio::test]
async fn after_a_time_in_which_no_job_could_be_rescued_all_are_rescued_at_once() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    for n in 0..20 {
        harness.enqueue(&format!("job {n}"), &[Step::Done]).await;
    }
    harness.execute("UPDATE apalis.jobs SET status = 'Running', lock_by = 'dead', attempts = 1").await;
    sqlx::raw_sql(REFUSE_ALL).execute(&harness.pool).await.expect("a trigger");
    let running = harness.start_worker(&scripted, SHORT_LEASE);
    harness.wait_until("many rescues are refused", "(SELECT last_value >= 50 FROM refusals)").await;
    assert_eq!(scripted.runs().len(), 0, "none was rescued");
    harness.execute("DROP TRIGGER refuse ON apalis.jobs").await;
    eventually("all run", SOON, async || scripted.runs().len() == 20).await;
    harness.wait_until("all are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
    running.stop().await;
}

/// A worker that starts during an outage sees old rows of workers that are about to renew their leases.
#[tokio::test]
async fn a_new_worker_rescues_no_job_before_it_has_watched_a_whole_lease() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("job", &[Step::Done]).await;
    harness
        .execute(
            "INSERT INTO apalis.workers (id, worker_type, storage_name, last_seen, lease)
             VALUES ('slow', 'millrace', 'PostgreSQL', now() - interval '1 minute', '10 s')",
        )
        .await;
    harness.execute("UPDATE apalis.jobs SET status = 'Running', lock_by = 'slow', attempts = 1").await;
    let running = harness.start_worker(&scripted, SHORT_LEASE);
    for _ in 0..10 {
        // The slow worker's clock may be wrong, but it renews its lease.
        harness.execute("UPDATE apalis.workers SET last_seen = last_seen WHERE id = 'slow'").await;
        harness.execute("UPDATE apalis.workers SET last_seen = last_seen WHERE id = 'slow'").await;
        let own = format!("(SELECT xmin::text FROM apalis.workers WHERE id = '{}')", running.worker.name);
        let before: Option<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT {own}"))).fetch_one(&harness.pool).await.unwrap();
        let renewed = format!("({own} IS DISTINCT FROM {})", before.map_or("NULL".into(), |old| format!("'{old}'")));
        harness.wait_until("the new worker has renewed its lease", &renewed).await;
        let row = harness.row("job").await;
        assert_eq!((row.status.as_str(), row.crashes), ("Running", 0), "the job was taken from a live worker");
    }
    // Its last renewal has a lease that the test need not wait for.
    harness.execute("UPDATE apalis.workers SET lease = '1 s' WHERE id = 'slow'").await;
    harness
        .wait_until(
            "the slow worker no longer renews, and its job is done",
            "(SELECT status = 'Done' FROM apalis.jobs)",
        )
        .await;
    running.stop().await;
    assert_eq!(harness.row("job").await.crashes, 1);
}

/// A worker's row can be deleted by hand or by a restore. Its jobs must not be stuck.
#[tokio::test]
async fn jobs_whose_worker_has_no_row_run_elsewhere() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    for name in ["without a name", "of one that is gone"] {
        harness.enqueue(name, &[Step::Done]).await;
    }
    harness.execute("UPDATE apalis.jobs SET status = 'Running', attempts = 1").await;
    let gone = "UPDATE apalis.jobs SET lock_by = 'gone' WHERE position('gone' IN convert_from(job, 'UTF8')) > 0";
    assert_eq!(harness.execute(gone).await, 1);
    let running = harness.start_worker(&scripted, SHORT_LEASE);
    harness.wait_until("both are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
    running.stop().await;
    assert_eq!(harness.row("of one that is gone").await.crashes, 1);
}

/// The search for such workers may take long, such as under an old snapshot.
#[tokio::test]
async fn a_slow_search_for_workers_without_a_row_delays_no_rescue() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("held", &[Step::Done]).await;
    give_all_to_a_dead_worker(&harness).await;
    harness.enqueue("without a name", &[Step::Done]).await;
    harness.execute("UPDATE apalis.jobs SET status = 'Running', attempts = 1 WHERE status = 'Pending'").await;
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
                CREATE TRIGGER slow BEFORE UPDATE ON apalis.jobs FOR EACH ROW
                WHEN (NEW.lock_by = 'unknown') EXECUTE FUNCTION slow()";
    sqlx::raw_sql(slow).execute(&harness.pool).await.unwrap();
    // With its lease of 20 s the worker waits 2 s for the server's refusal, which comes after 1 s. With a lease of 1 s
    // it would wait 0.3 s, and a refusal that came later would end the session.
    let running = harness.start_worker(&scripted, FAST);
    // Three searches, each up to its limit, come first.
    eventually("the dead worker's job runs", SOON * 3, async || scripted.runs_of("held") == 1).await;
    let row = harness.row("without a name").await;
    assert_eq!((row.status.as_str(), row.lock_by), ("Running", None), "the search ended at its limit");
    running.stop().await;
    assert_eq!(harness.row("held").await.crashes, 1);
}

/// After a failover to an asynchronous standby, or a restore, a worker may hold jobs in the database that it has ended. It
/// lives, so no other worker rescues them.
#[tokio::test]
async fn a_job_whose_result_the_database_has_lost_runs_again() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("job", &[Step::Done]).await;
    let running = harness.start_worker(&scripted, SHORT_LEASE);
    harness.wait_until("it is done", "(SELECT status = 'Done' FROM apalis.jobs)").await;
    let forget = "UPDATE apalis.jobs SET status = 'Running', done_at = NULL WHERE status = 'Done'";
    assert_eq!(harness.execute(forget).await, 1);
    harness.wait_until("it is done again", "(SELECT status = 'Done' AND attempts = 2 FROM apalis.jobs)").await;
    running.stop().await;
    assert_eq!(scripted.runs_of("job"), 2);
    assert_eq!(harness.row("job").await.crashes, 0, "it counts as no crash");
}

#[tokio::test]
async fn a_live_worker_whose_row_is_deleted_keeps_its_jobs() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("job", &[Step::Wait]).await;
    let running = harness.start_worker(&scripted, WATCHED_LEASE);
    eventually("the job runs", SOON, async || scripted.runs_of("job") == 1).await;
    let other = harness.start_worker(&scripted, WATCHED_LEASE);
    harness.wait_until("both workers have a row", "(SELECT count(*) FROM apalis.workers) = 2").await;
    harness.execute("DELETE FROM apalis.workers").await;
    harness.wait_until("both workers have a row again", "(SELECT count(*) FROM apalis.workers) = 2").await;
    // Two leases, in each of which the other worker looks for dead workers many times.
    harness.wait_for_heartbeats(50).await;
    scripted.gate.add_permits(1);
    harness.wait_until("the job is done", "(SELECT status = 'Done' FROM apalis.jobs)").await;
    running.stop().await;
    other.stop().await;
    let row = harness.row("job").await;
    assert_eq!((row.attempts, row.crashes), (1, 0), "the job ran once");
}

#[tokio::test]
async fn a_worker_that_cannot_renew_claims_nothing_until_it_can() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let running = harness.start_worker(&scripted, SHORT_LEASE);
    let ready = running.worker.is_ready();
    eventually("the lease is valid", SOON, async || ready()).await;
    // A lock on the worker's row blocks only its heartbeat.
    let mut lock = harness.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM apalis.workers FOR UPDATE").execute(&mut *lock).await.unwrap();
    // A heartbeat that waits has read the response of the one before, which would make the lease valid again.
    let waits = "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
    harness.wait_until("a heartbeat waits for the lock", waits).await;
    eventually("the lease is no longer valid", SOON, async || !ready()).await;
    harness.enqueue("job", &[Step::Done]).await;
    let expired = "(SELECT max(last_seen) < now() - interval '1200 milliseconds' FROM apalis.workers)";
    harness.wait_until("its lease has expired", expired).await;
    assert_eq!(scripted.runs().len(), 0, "claimed without a lease");
    lock.rollback().await.unwrap();
    eventually("the job has run", SOON, async || scripted.runs_of("job") == 1).await;
    running.stop().await;
}

/// No outcome of a run is written after its job was claimed by another worker or rescued.
#[tokio::test]
async fn a_result_with_an_old_token_is_dropped() {
    for (taken, status, claims) in [
        ("status = 'Running', lock_by = 'other', attempts = attempts + 1", "Running", 2),
        // Rescued, but not yet claimed again.
        ("status = 'Pending', run_at = now() + interval '1 hour'", "Pending", 1),
    ] {
        let (harness, scripted) =
            (QueueHarness::start().await, ScriptedJobs::new(Policy { attempts: 1, ..quick_policy() }));
        let ends = [("done", Step::Done), ("fails", Step::Fail), ("snoozes", Step::Snooze(1)), ("dies", Step::Reject)];
        for (name, end) in &ends {
            harness.enqueue(name, &[Step::WaitThen(Box::new(end.clone()))]).await;
        }
        // The other worker has no row. With a short lease it would be rescued before a slow stop has ended.
        let running = harness.start_worker(&scripted, FAST);
        eventually("all four run", SOON, async || scripted.runs().len() == 4).await;
        assert_eq!(harness.execute(&format!("UPDATE apalis.jobs SET {taken}")).await, 4);
        scripted.gate.add_permits(4);
        running.stop().await;
        for (name, _) in ends {
            let row = harness.row(name).await;
            assert_eq!((row.status.as_str(), row.attempts, row.failures), (status, claims, 0), "{name}, {taken}");
        }
    }
}

/// A later claim of the same worker has another token.
#[tokio::test]
async fn a_token_is_valid_for_one_run() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    harness.enqueue("done", &[Step::Wait, Step::Hang]).await;
    harness.enqueue("fails", &[Step::WaitThen(Box::new(Step::Fail)), Step::Hang]).await;
    let running = harness.start_worker(&scripted, SHORT_LEASE);
    eventually("both run", SOON, async || scripted.runs().len() == 2).await;
    harness.execute("UPDATE apalis.jobs SET status = 'Pending'").await;
    eventually("both run a second time while the first runs continue", SOON, async || scripted.runs().len() == 4).await;
    scripted.gate.add_permits(2);
    eventually("both first runs have passed the gate", SOON, async || scripted.gate.available_permits() == 0).await;
    // Results are written in order, so that those of the first runs come before these.
    harness.enqueue("later", &[Step::Done]).await;
    harness.enqueue("later still", &[Step::Reject]).await;
    let written = "(SELECT count(*) FROM apalis.jobs WHERE status IN ('Done', 'Killed') AND attempts = 1) = 2";
    harness.wait_until("later results are written", written).await;
    for name in ["done", "fails"] {
        let row = harness.row(name).await;
        assert_eq!((row.status.as_str(), row.attempts, row.failures), ("Running", 2, 0), "{name}");
    }
    running.abort().await;
}
