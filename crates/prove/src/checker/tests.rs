//! The checker on histories that keep every promise, and on such that break one each.

use super::*;

fn state(status: &str) -> State {
    let processed_at = (status != "PROCESSING").then(|| "2026-01-01T00:00:00.000001Z".to_owned());
    State { status: status.to_owned(), processed_at }
}

fn acknowledged(payload: u32, outcome: Outcome) -> Event {
    Event::Acknowledged { id: "t".into(), payload, outcome }
}

fn seen(status: &str) -> Event {
    Event::Seen { client: 1, id: "t".into(), state: state(status) }
}

fn called(key: &str) -> Event {
    Event::Called { id: "t".into(), key: key.into() }
}

fn recorded(status: &str, settlements: u32, jobs: u32, conflicts: u32) -> Event {
    Event::Recorded { id: "t".into(), state: state(status), settlements, jobs, conflicts }
}

fn fired(fire_time: i64, job: &str) -> Event {
    Event::Fired { fire_time, job: job.into() }
}

fn completed(role: &str) -> Event {
    let claimed_by = "some-host-7-0ABCDEFG".into();
    Event::Completed { job: "j".into(), run: 1, role: role.into(), claimed_by, at_us: 0 }
}

fn worker(role: &str, pid: u32) -> Event {
    Event::Worker { role: role.into(), pid }
}

fn verdict(events: Vec<Event>) -> Verdict {
    check((0..).zip(events).map(|(at_ms, event)| Ok(Line { at_ms, event }))).expect("events")
}

#[test]
fn a_good_history_keeps_every_promise() {
    let kept = verdict(vec![
        worker("one", 7),
        worker("two", 8),
        Event::Unavailable { id: "t".into() },
        Event::Unanswered { id: "t".into() },
        acknowledged(0, Outcome::New),
        acknowledged(0, Outcome::Replayed),
        acknowledged(1, Outcome::Conflict),
        acknowledged(1, Outcome::Conflict),
        seen("PROCESSING"),
        called("t"),
        called("t"),
        seen("PROCESSED"),
        seen("PROCESSED"),
        Event::Created { item: 1 },
        Event::Indexed { item: 1 },
        fired(5, "a"),
        fired(5, "a"),
        fired(6, "b"),
        completed("one"),
        recorded("PROCESSED", 1, 1, 1),
    ]);
    assert!(kept.is_kept(), "{kept:?}");
    assert_eq!((kept.acknowledged, kept.unavailable, kept.unanswered), (4, 1, 1));
}

#[test]
fn each_broken_promise_is_found() {
    let new = || acknowledged(0, Outcome::New);
    let fine = || recorded("PROCESSED", 1, 1, 0);
    for (case, events, lost, doubled, broken) in [
        ("no row", vec![new()], 1, 0, 0),
        ("not settled", vec![new(), recorded("PROCESSING", 0, 1, 0)], 1, 0, 0),
        ("not settled, and never acknowledged", vec![recorded("PROCESSING", 0, 1, 0)], 0, 0, 1),
        ("settled twice", vec![new(), called("t"), recorded("PROCESSED", 2, 1, 0)], 0, 1, 0),
        ("two jobs", vec![new(), called("t"), recorded("PROCESSED", 1, 2, 0)], 0, 1, 0),
        ("two rows", vec![new(), called("t"), fine(), fine()], 0, 1, 0),
        ("two keys", vec![new(), called("t"), called("u"), fine()], 0, 1, 0),
        ("no call", vec![new(), fine()], 0, 0, 1),
        ("backwards", vec![new(), called("t"), seen("PROCESSED"), seen("PROCESSING"), fine()], 0, 0, 1),
        ("another end", vec![new(), called("t"), seen("FAILED"), fine()], 0, 0, 1),
        ("a conflict is gone", vec![new(), called("t"), acknowledged(1, Outcome::Conflict), fine()], 0, 0, 1),
        ("a conflict is swallowed", vec![new(), called("t"), acknowledged(1, Outcome::Replayed), fine()], 0, 0, 1),
        ("a replay is a conflict", vec![new(), called("t"), acknowledged(0, Outcome::Conflict), fine()], 0, 0, 1),
        ("fired twice", vec![fired(5, "a"), fired(5, "b")], 0, 1, 0),
        ("not fired", vec![fired(5, "a"), fired(7, "b")], 0, 0, 1),
        ("a stale worker", vec![worker("one", 7), worker("two", 8), completed("two")], 0, 0, 1),
        ("an unknown worker", vec![completed("one")], 0, 0, 1),
        ("completed twice", vec![worker("one", 7), completed("one"), completed("one")], 0, 1, 0),
        ("not indexed", vec![Event::Created { item: 1 }, Event::Indexed { item: 2 }], 1, 0, 0),
        ("not started", vec![Event::Expected { job: "j".into(), within_ms: 1 }], 0, 0, 1),
        ("refused", vec![Event::Refused { id: "t".into(), reason: "500".into() }], 0, 0, 1),
        ("a secret", vec![Event::Broken { what: "a secret in a log".into() }], 0, 0, 1),
    ] {
        let found = verdict(events);
        assert_eq!((found.lost, found.doubled, found.broken), (lost, doubled, broken), "{case}: {found:?}");
        assert!(!found.is_kept() && found.examples.len() == 1, "{case}: {found:?}");
    }
}

#[test]
fn only_the_first_examples_of_a_kind_are_named() {
    let lost =
        (0..100).map(|number| Event::Acknowledged { id: format!("t{number}"), payload: 0, outcome: Outcome::New });
    let found = verdict(lost.collect());
    assert_eq!((found.lost, found.examples.len()), (100, NAMED));
}

/// While the history goes on, only what no later event can mend counts as broken.
#[test]
fn what_may_still_come_is_not_broken_while_a_history_goes_on() {
    let new = || acknowledged(0, Outcome::New);
    let expected = || Event::Expected { job: "j".into(), within_ms: 50 };
    let settled = || recorded("COMPLETED", 1, 1, 0);
    for (case, events, before, state, is_kept) in [
        ("not settled yet", vec![new()], 1, vec![recorded("PROCESSING", 0, 1, 0)], true),
        ("acknowledged before, without a row", vec![new()], 1, vec![], false),
        ("acknowledged since", vec![new()], 0, vec![], true),
        ("seen since", vec![seen("COMPLETED")], 0, vec![recorded("PROCESSING", 0, 1, 0)], true),
        ("called since", vec![new(), called("key")], 1, vec![settled()], true),
        ("settled without a call", vec![new()], 1, vec![settled()], false),
        ("settled twice", vec![called("key")], 1, vec![recorded("COMPLETED", 2, 1, 0)], false),
        (
            "a conflict that is not recorded",
            vec![acknowledged(1, Outcome::Conflict)],
            1,
            vec![recorded("PROCESSING", 0, 1, 0)],
            false,
        ),
        ("not indexed yet", vec![Event::Created { item: 1 }], 1, vec![], true),
        ("a second without a fire yet", vec![fired(1, "a"), fired(3, "b")], 2, vec![], true),
        ("started in time", vec![expected(), Event::Started { job: "j".into(), run: 1 }], 2, vec![], true),
        ("started too late", vec![expected()], 1, vec![], false),
    ] {
        let lines = (0..).zip(events).map(|(at_ms, event)| Ok(Line { at_ms, event }));
        let found = check_so_far(lines, before, 100, state).expect("events");
        assert_eq!(found.is_kept(), is_kept, "{case}: {found:?}");
    }
}
