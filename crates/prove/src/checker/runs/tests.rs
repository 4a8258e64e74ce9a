//! The rules about leases and runs, each with histories that keep it and such that break it.

use super::*;

const WORKER: &str = "host-7-AAAAAAAA";
const SECOND: i64 = 1_000_000;

fn renewed(at_us: i64) -> Event {
    Event::Renewed { worker: WORKER.into(), at_us, lease_us: SECOND }
}

fn claimed(kind: &str, run: i32, at_us: i64) -> Event {
    Event::Claimed { job: "j".into(), kind: kind.into(), run, worker: WORKER.into(), at_us }
}

fn rescued(at_us: i64) -> Event {
    Event::Rescued { job: "j".into(), worker: WORKER.into(), at_us }
}

fn failed(run: i32, pause_ms: u64) -> Event {
    Event::Failed { job: "j".into(), run, pause_ms }
}

fn retried(run: i32, at_us: i64) -> Event {
    Event::Retried { job: "j".into(), run, at_us }
}

fn started(run: i32) -> Event {
    Event::Started { job: "j".into(), run }
}

fn ended(run: i32, at_us: i64) -> Event {
    Event::Ended { job: "j".into(), run, at_us }
}

fn completed(run: i32, at_us: i64) -> Event {
    Event::Completed { job: "j".into(), run, role: "r".into(), claimed_by: WORKER.into(), at_us }
}

fn expected(within_ms: u64) -> Event {
    Event::Expected { job: "j".into(), within_ms }
}

/// The broken promises of a history, one event in each second.
fn broken(events: Vec<Event>) -> Vec<String> {
    let mut runs = Runs::default();
    let mut found: Vec<String> =
        (0..).step_by(1000).zip(&events).filter_map(|(at_ms, event)| runs.add(at_ms, event)).collect();
    found.extend(runs.finish(None));
    found
}

#[test]
fn a_worker_claims_while_it_has_a_lease() {
    for (case, events, is_kept) in [
        ("within its lease", vec![renewed(0), claimed("q", 1, SECOND), claimed("q", 2, SECOND)], true),
        (
            "after each renewal",
            vec![renewed(0), renewed(3 * SECOND), claimed("q", 1, 1), claimed("q", 2, 4 * SECOND)],
            true,
        ),
        ("a claim under way at the freeze", vec![renewed(0), claimed("q", 1, 2 * SECOND)], true),
        ("of several jobs", vec![renewed(0), claimed("q", 1, 2 * SECOND), claimed("q", 2, 2 * SECOND)], true),
        ("of each queue", vec![renewed(0), claimed("q", 1, 2 * SECOND), claimed("r", 1, 3 * SECOND)], true),
        (
            "at two freezes",
            vec![renewed(0), renewed(5 * SECOND), claimed("q", 1, 2 * SECOND), claimed("q", 2, 7 * SECOND)],
            true,
        ),
        ("twice without a lease", vec![renewed(0), claimed("q", 1, 2 * SECOND), claimed("q", 2, 3 * SECOND)], false),
        ("twice before the first renewal", vec![renewed(9 * SECOND), claimed("q", 1, 1), claimed("q", 2, 2)], false),
    ] {
        assert_eq!(broken(events).is_empty(), is_kept, "{case}");
    }
}

#[test]
fn the_jobs_of_a_live_worker_are_not_rescued() {
    let lease = |times: [i64; 2]| times.map(renewed).to_vec();
    for (case, renewals, rescue, is_kept) in [
        ("a dead worker", lease([0, SECOND / 5]), 2 * SECOND, true),
        ("a renewal under way", lease([0, 2 * SECOND - 1]), 2 * SECOND, true),
        ("a renewal later", lease([0, 3 * SECOND]), 2 * SECOND, true),
        ("two renewals", lease([SECOND * 3 / 2, SECOND * 7 / 4]), 2 * SECOND, false),
    ] {
        let events = renewals.into_iter().chain([rescued(rescue)]).collect();
        assert_eq!(broken(events).is_empty(), is_kept, "{case}");
    }
    assert!(broken(vec![rescued(SECOND)]).is_empty(), "a worker without a row");
}

#[test]
fn a_failed_job_waits_for_its_pause() {
    let after = |microseconds: i64| {
        broken(vec![renewed(0), failed(1, 300), retried(1, 1000), claimed("q", 2, 1000 + microseconds)])
    };
    assert!(after(300_000).is_empty());
    assert_eq!(after(299_999).len(), 1, "too early");
    assert!(
        broken(vec![renewed(0), failed(1, 300), claimed("q", 2, 1)]).is_empty(),
        "the result was lost with its worker"
    );
    assert!(broken(vec![renewed(0), retried(1, 0), claimed("q", 2, 1)]).is_empty(), "a job that asks for no pause");
}

#[test]
fn a_job_is_completed_by_the_run_that_holds_it() {
    for (case, events, is_kept) in [
        ("after its run", vec![started(1), ended(1, 5), completed(1, 6)], true),
        ("a kind that does not report", vec![completed(1, 6)], true),
        ("before its run ended", vec![started(1), started(3), ended(3, 9), completed(3, 6)], false),
        ("by an earlier run", vec![started(1), started(3), ended(1, 5), completed(3, 6)], false),
    ] {
        assert_eq!(broken(events).is_empty(), is_kept, "{case}");
    }
}

#[test]
fn a_job_that_no_worker_heard_of_starts_in_time() {
    assert!(broken(vec![expected(1000), started(1)]).is_empty());
    assert!(broken(vec![started(1), expected(0)]).is_empty(), "it was found at once");
    assert_eq!(broken(vec![expected(999), started(1)]).len(), 1, "late");
    assert_eq!(broken(vec![expected(1000)]).len(), 1, "never");
}
