//! The search finds nothing while all guards are on, and finds what each guard prevents.

use std::collections::BTreeSet;

use super::{
    guard::{Guard, Rules},
    row::{Due, Job, Status},
    search::explore,
    state::{Action, JOBS, Limits, State, Work},
};

/// A job can be quarantined, replayed, and quarantined on the way to its end.
const ONE_JOB: Limits = Limits { jobs: 1, claims: 5, replays: 1, deletes: true };
/// Two jobs share workers, and may share a key.
const TWO_JOBS: Limits = Limits { jobs: 2, claims: 2, replays: 1, deletes: true };

/// Every row of a job in these states.
fn rows(states: &[State]) -> BTreeSet<Job> {
    states.iter().flat_map(State::jobs).collect()
}

/// Every row of one job with up to three claims.
pub(super) fn reached_jobs() -> BTreeSet<Job> {
    rows(&explore_whole(Limits { claims: 3, ..ONE_JOB }, Rules::UNMERGED))
}

/// Visits every state within the limits, prints their number, and returns them.
fn explore_whole(limits: Limits, rules: Rules) -> Vec<State> {
    let explored = explore(limits, rules).unwrap_or_else(|found| panic!("{found}"));
    println!("{limits:?}: {} states, {} transitions", explored.states.len(), explored.transitions);
    explored.states
}

#[test]
fn one_job_keeps_every_promise() {
    let jobs = rows(&explore_whole(ONE_JOB, Rules::ALL));
    for status in [Status::Pending, Status::Running, Status::Done, Status::Killed, Status::Cancelled] {
        assert!(jobs.iter().any(|job| job.status == status), "{status:?} is never reached");
    }
    // Ended jobs that differ only in their counts are merged, so a search that merges nothing shows these.
    let unmerged = rows(&explore_whole(ONE_JOB, Rules::UNMERGED));
    let is_quarantined = |job: &Job| job.status == Status::Killed && job.crashes == 3;
    assert!(unmerged.iter().any(is_quarantined), "no job is quarantined");
    assert!(unmerged.iter().any(|job| job.status == Status::Done && job.replays == 1), "no replayed job is done");
}

#[test]
fn two_jobs_keep_every_promise() {
    explore_whole(TWO_JOBS, Rules::ALL);
}

/// Merging loses no state of one job.
#[test]
fn a_search_that_merges_nothing_reaches_the_same_states() {
    let limits = Limits { claims: 3, ..ONE_JOB };
    let keys =
        |rules| -> BTreeSet<u64> { explore_whole(limits, rules).iter().map(|state| state.key(Rules::ALL)).collect() };
    assert_eq!(keys(Rules::UNMERGED), keys(Rules::ALL));
}

/// From states that count as the same one, the next states are the same as well. So none is lost by visiting one of them.
#[test]
fn merged_states_have_the_same_next_states() {
    let limits = Limits { claims: 1, replays: 0, ..TWO_JOBS };
    let actions = State::actions(limits);
    // A step that changes only what is not read leads to the same state.
    let next_keys = |state: &State| -> BTreeSet<u64> {
        let next = actions.iter().filter_map(|action| state.apply(*action, limits, Rules::ALL));
        next.chain([*state]).map(|state| state.key(Rules::ALL)).collect()
    };
    let mut compared = 0;
    for state in explore_whole(limits, Rules::ALL) {
        let (key, expected) = (state.key(Rules::ALL), next_keys(&state));
        for variant in variants(&state).into_iter().filter(|other| *other != state && other.key(Rules::ALL) == key) {
            assert_eq!(next_keys(&variant), expected, "{state:?} and {variant:?}");
            compared += 1;
        }
    }
    assert!(compared > 10_000, "only {compared} states were compared");
}

/// The state with other names, and with other values of each column.
fn variants(state: &State) -> Vec<State> {
    let mut swapped = *state;
    swapped.workers.reverse();
    for work in &mut swapped.work {
        work.stale.reverse();
        work.job = work.job.map(|job| Job { holder: job.holder.map(|worker| 1 - worker), ..job });
    }
    let mut variants = vec![swapped, State { work: [state.work[1], state.work[0]], ..*state }];
    for place in 0..JOBS {
        let work = state.work[place];
        let mut works = vec![Work { effects: 0, ..work }, Work { effects: 1, ..work }];
        let stale = [[false, false], [false, true], [true, false], [true, true]];
        works.extend(stale.map(|stale| Work { stale, ..work }));
        if let Some(job) = work.job {
            let mut jobs: Vec<Job> = Vec::new();
            jobs.extend([None, Some(0), Some(1)].map(|holder| Job { holder, ..job }));
            jobs.extend([Due::Now, Due::Soon, Due::Later].map(|due| Job { due, ..job }));
            jobs.extend([false, true].map(|has_key| Job { has_key, ..job }));
            jobs.extend([false, true].map(|requested| Job { cancel_requested: requested, ..job }));
            for count in 0..3 {
                jobs.extend([Job { attempts: count, ..job }, Job { failures: count, ..job }]);
                jobs.push(Job { crashes: count, ..job });
            }
            for job in jobs {
                works.push(Work { job: Some(job), ..work });
            }
        }
        variants.extend(works.into_iter().map(|work| {
            let mut variant = *state;
            variant.work[place] = work;
            variant
        }));
    }
    variants
}

/// Each guard with what happens without it, and the length of the shortest way there.
const NEEDED: [(Guard, usize, &str); 26] = [
    (Guard::InsertKey, 2, "two jobs with one key wait or run"),
    (Guard::ClaimPending, 3, "a dead or cancelled job was claimed"),
    (Guard::ClaimDue, 2, "a job was claimed before it is due"),
    (Guard::ClaimPause, 2, "a paused queue was claimed from"),
    (Guard::ClaimCounts, 2, "two runs have the same token"),
    (Guard::ResultAttempt, 4, "the result of a stale run would change its job"),
    (Guard::ResultRunning, 3, "the result of a stale run would change its job"),
    (Guard::Rescue, 3, "a job cannot end although nothing fails any more"),
    (Guard::RescueRunning, 4, "a dead or cancelled job changed without an order"),
    (Guard::RescueHolder, 3, "a job was taken from a live worker that runs it"),
    (Guard::RescueVersion, 3, "a job was taken from a live worker that runs it"),
    (Guard::RescueCounts, 3, "a rescue counted no crash"),
    (Guard::GiveBack, 2, "a job cannot end although nothing fails any more"),
    (Guard::GiveBackRunning, 4, "a dead or cancelled job changed without an order"),
    (Guard::GiveBackHolder, 3, "a job was taken from a live worker that runs it"),
    (Guard::GiveBackUnknown, 3, "a job was taken from a live worker that runs it"),
    (Guard::GiveBackAttempt, 4, "a lost claim that is given back late would take the job from a later run"),
    (Guard::Quarantine, 9, "a job with three crashes ran again"),
    (Guard::ConditionalEffect, 4, "the effect of a job was recorded twice"),
    (Guard::CancelPending, 3, "a job was taken from a live worker that runs it"),
    (Guard::ReplayDead, 3, "a job was taken from a live worker that runs it"),
    (Guard::ReplayKey, 4, "two jobs with one key wait or run"),
    (Guard::ReplayWithdraws, 5, "a replayed job would be cancelled at once"),
    (Guard::DiscardKilled, 2, "a waiting job was discarded"),
    (Guard::TidyEnded, 4, "a request to cancel was lost"),
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
         2. Claim { worker: 0, job: 0, moment: NotDue, response_lost: false }\n"
    );
}
