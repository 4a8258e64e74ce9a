//! The search finds nothing while all guards are on, and finds what each guard prevents.

use std::collections::BTreeSet;

use super::{
    guard::{Guard, Rules},
    row::{Job, Status},
    search::explore,
    state::{Action, Limits},
};

/// A job can be quarantined, replayed, and quarantined on the way to its end.
const ONE_JOB: Limits = Limits { jobs: 1, claims: 5, replays: 1, pauses: true, deletes: true };
/// Two jobs share workers, and may share a key.
const TWO_JOBS: Limits = Limits { jobs: 2, claims: 2, replays: 0, pauses: false, deletes: false };
const TWO_REPLAYED: Limits = Limits { jobs: 2, claims: 1, replays: 1, pauses: false, deletes: false };

/// Every row of a job that the default searches reach.
pub(super) fn reached_jobs() -> BTreeSet<Job> {
    explore_whole(ONE_JOB)
}

/// Visits every state within the limits, prints their number, and returns the rows.
fn explore_whole(limits: Limits) -> BTreeSet<Job> {
    let explored = explore(limits, Rules::ALL).unwrap_or_else(|found| panic!("{found}"));
    println!("{limits:?}: {} states, {} transitions", explored.states, explored.transitions);
    explored.jobs
}

#[test]
fn one_job_keeps_every_promise() {
    let jobs = explore_whole(ONE_JOB);
    for status in [Status::Pending, Status::Running, Status::Done, Status::Killed, Status::Cancelled] {
        assert!(jobs.iter().any(|job| job.status == status), "{status:?} is never reached");
    }
    assert!(jobs.iter().any(|job| job.status == Status::Killed && job.crashes == 3), "no job is quarantined");
    assert!(jobs.iter().any(|job| job.status == Status::Done && job.replays == 1), "no replayed job is done");
}

#[test]
fn two_jobs_keep_every_promise() {
    explore_whole(TWO_JOBS);
}

#[test]
fn two_replayed_jobs_keep_every_promise() {
    explore_whole(TWO_REPLAYED);
}

/// Takes minutes without optimisation. `docs/model.md` has its figures.
#[test]
#[ignore = "1,200,000 states: cargo test --release -p queue -- --ignored --nocapture model"]
fn two_jobs_with_all_steps_keep_every_promise() {
    explore_whole(Limits { replays: 1, pauses: true, deletes: true, ..TWO_JOBS });
}

/// Each guard with what happens without it, and the length of the shortest way there.
const NEEDED: [(Guard, usize, &str); 26] = [
    (Guard::InsertKey, 2, "two jobs with one key wait or run"),
    (Guard::ClaimPending, 4, "a dead or cancelled job was claimed"),
    (Guard::ClaimDue, 2, "a job was claimed before it is due"),
    (Guard::ClaimPause, 4, "a paused queue was claimed from"),
    (Guard::ClaimCounts, 3, "two runs have the same token"),
    (Guard::ResultAttempt, 5, "the result of a stale run would change its job"),
    (Guard::ResultRunning, 4, "the result of a stale run would change its job"),
    (Guard::Rescue, 4, "a job cannot end although nothing fails any more"),
    (Guard::RescueRunning, 5, "a dead or cancelled job changed without an order"),
    (Guard::RescueHolder, 4, "a job was taken from a live worker that runs it"),
    (Guard::RescueVersion, 4, "a job was taken from a live worker that runs it"),
    (Guard::RescueCounts, 4, "a rescue counted no crash"),
    (Guard::GiveBack, 3, "a job cannot end although nothing fails any more"),
    (Guard::GiveBackRunning, 5, "a dead or cancelled job changed without an order"),
    (Guard::GiveBackHolder, 4, "a job was taken from a live worker that runs it"),
    (Guard::GiveBackUnknown, 4, "a job was taken from a live worker that runs it"),
    (Guard::GiveBackAttempt, 5, "a lost claim that is given back late would take the job from a later run"),
    (Guard::Quarantine, 12, "a job with three crashes ran again"),
    (Guard::ConditionalEffect, 5, "the effect of a job was recorded twice"),
    (Guard::CancelPending, 4, "a job was taken from a live worker that runs it"),
    (Guard::ReplayDead, 4, "a job was taken from a live worker that runs it"),
    (Guard::ReplayKey, 4, "two jobs with one key wait or run"),
    (Guard::ReplayWithdraws, 6, "a replayed job would be cancelled at once"),
    (Guard::DiscardKilled, 2, "a waiting job was discarded"),
    (Guard::TidyEnded, 5, "a request to cancel was lost"),
    (Guard::DeleteOld, 3, "a job was deleted before its retention"),
];

/// Guards that the model does not need. Conformance tests cover them with rows that the model never reaches.
///
/// - Claims have different numbers, so a number identifies a run. In the table it can begin again: after 2^31 claims, or
///   when an older backup is restored.
/// - Only ended jobs have an end. Another program may write one to a job that waits.
const REDUNDANT: [Guard; 2] = [Guard::ResultHolder, Guard::DeleteEnded];

#[test]
fn a_missing_guard_is_found() {
    for (guard, steps, broken) in NEEDED {
        // Only keys need a second job.
        let jobs = if matches!(guard, Guard::InsertKey | Guard::ReplayKey) { 2 } else { 1 };
        let limits = Limits { jobs, ..ONE_JOB };
        let Err(found) = explore(limits, Rules::without(guard)) else { panic!("{guard:?} is not needed") };
        println!("Without {guard:?}, {found}");
        assert_eq!((found.broken, found.trace.len()), (broken, steps), "without {guard:?}, {found}");
    }
}

#[test]
fn a_redundant_guard_is_not_missed() {
    for guard in REDUNDANT {
        let limits = Limits { claims: 3, ..ONE_JOB };
        if let Err(found) = explore(limits, Rules::without(guard)) {
            panic!("{guard:?} is needed: {found}");
        }
    }
}

#[test]
fn a_counterexample_is_a_readable_trace() {
    let Err(found) = explore(ONE_JOB, Rules::without(Guard::ClaimDue)) else { panic!("the guard is not needed") };
    assert_eq!(found.trace[0], Action::Enqueue { job: 0, unique: false });
    assert_eq!(
        found.to_string(),
        "a job was claimed before it is due:\n   \
         1. Enqueue { job: 0, unique: false }\n   \
         2. Claim { worker: 0, job: 0, response_lost: false }\n"
    );
}
