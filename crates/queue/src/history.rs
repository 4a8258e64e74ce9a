//! The history of a job: what is known to have happened to it.
//!
//! Nothing is stored twice. The present run, its end and the time of enqueueing come from the job's own columns,
//! failures and crashes from its errors, and orders of operators from the record of actions. Only what would be
//! overwritten otherwise is stored as an event: snoozes, runs that were given back, its turn in a replay of many, and how
//! its record had failed before a replay. So a job that ends in its first run costs nothing.

use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use super::{
    cancel::CANCELLED,
    job::JobId,
    status::{JobEvent, JobStatus, State, format_duration},
    store::leases::WORKER_DIED,
};

/// The most events of a history, the newest ones.
const NEWEST: usize = 20;

/// An entry of a job's errors or events. Other programs may have left other entries, which are skipped.
#[derive(Deserialize)]
struct Entry {
    at: String,
    event: Option<String>,
    run: Option<i64>,
    worker: Option<String>,
    started: Option<String>,
    error: Option<String>,
    until: Option<String>,
    reason: Option<String>,
    first_at: Option<String>,
    times: Option<i64>,
    by: Option<String>,
    replay: Option<String>,
}

/// An action of an operator on the job.
#[derive(Deserialize)]
struct Act {
    at: String,
    actor: String,
    action: String,
    reason: String,
}

/// The newest events of a job, oldest first. `acts` are the actions of operators that named it.
pub(crate) fn history(job: &JobStatus, errors: &Value, events: &Value, acts: &Value) -> Vec<JobEvent> {
    let recorded = [errors, events].into_iter().filter_map(Value::as_array).flatten();
    let mut history: Vec<JobEvent> = recorded.filter_map(read_entry).collect();
    let acts: Vec<JobEvent> = acts.as_array().into_iter().flatten().filter_map(read_act).collect();
    if acts.iter().any(|act| act.event == "cancelled") {
        // The action says the same about a waiting job, and who it was. A run that was aborted has a worker.
        history.retain(|event| event.event != "cancelled" || event.details["worker"].is_string());
    }
    history.extend(acts);
    history.extend(enqueued(job));
    history.extend(present(job));
    history.sort_by_key(|event| event.at);
    history.split_off(history.len().saturating_sub(NEWEST))
}

fn read_entry(value: &Value) -> Option<JobEvent> {
    let entry = Entry::deserialize(value).ok()?;
    let at = parse_time(&entry.at)?;
    let run = entry.run.map_or_else(|| "a run".into(), |run| format!("run {run}"));
    let after = entry.started.as_deref().and_then(parse_time).map(|started| format!(" after {}", lasted(started, at)));
    let after = after.unwrap_or_default();
    let (event, text) = match (entry.event.as_deref(), entry.error.as_deref()) {
        (None, Some(CANCELLED)) => match entry.worker.as_deref() {
            Some(worker) => ("cancelled", format!("{run} in {worker} was aborted{after}: {CANCELLED}")),
            None => ("cancelled", CANCELLED.to_owned()),
        },
        (None, Some(WORKER_DIED)) => {
            let worker = entry.worker.as_deref().unwrap_or("unknown");
            ("rescued", format!("{run} was rescued{after}: its worker {worker} died"))
        }
        (None, error) => ("run_failed", format!("{run} failed{after}: {}", error.unwrap_or("no error is recorded"))),
        (Some("snoozed"), _) => ("snoozed", snoozed(&entry, &run)),
        (Some("failed"), error) => {
            ("failed", format!("it failed for good: {}", error.unwrap_or("no error is recorded")))
        }
        (Some("given_back"), _) => ("given_back", format!("{run} was given back{after}, because its worker stopped")),
        (Some("replayed"), _) => {
            let by = entry.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let replay = entry.replay.as_ref().map(|id| format!(" with the replay {id}")).unwrap_or_default();
            ("replayed", format!("replayed{by}{replay}"))
        }
        (Some(_), _) => return None,
    };
    let mut details = value.clone();
    if let Some(fields) = details.as_object_mut() {
        fields.retain(|name, value| !matches!(&**name, "at" | "event") && !value.is_null());
        for name in ["due", "started", "until", "first_at"] {
            let Some(field) = fields.get_mut(name) else { continue };
            if let Some(at) = field.as_str().and_then(parse_time) {
                *field = format_time(at).into();
            }
        }
    }
    Some(JobEvent { at, event, text, details })
}

fn read_act(value: &Value) -> Option<JobEvent> {
    let Act { at, actor, action, reason } = Act::deserialize(value).ok()?;
    let event = if action == "cancel" { "cancelled" } else { "replayed" };
    let details = json!({"by": actor, "reason": reason});
    Some(JobEvent { at: parse_time(&at)?, event, text: format!("{event} by {actor}: {reason}"), details })
}

fn snoozed(entry: &Entry, run: &str) -> String {
    let until = entry.until.as_deref().map(|until| format!(" until {}", to_second(until))).unwrap_or_default();
    let reason = entry.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    match (entry.times, &entry.first_at) {
        (Some(times), Some(first)) if times > 1 => {
            let first = to_second(first);
            format!("snoozed {times} times since {first}, last by {run}{until}{reason}")
        }
        _ => format!("{run} snoozed it{until}{reason}"),
    }
}

/// When the job was enqueued, which is in its id. Ids of other programs have no time.
fn enqueued(job: &JobStatus) -> Option<JobEvent> {
    let millis = JobId::parse(&job.id).0.timestamp_ms();
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()?;
    let details = json!({"correlation_id": job.correlation_id});
    (millis > 0).then(|| JobEvent { at, event: "enqueued", text: "enqueued".into(), details })
}

/// The run that goes on, or the end that is not among the errors.
fn present(job: &JobStatus) -> Option<JobEvent> {
    let worker = job.worker.as_deref().unwrap_or("unknown");
    let details = json!({"run": job.runs, "worker": job.worker, "due": format_time(job.due_at),
                         "started": job.started_at.and_then(format_time), "traceparent": job.traceparent});
    let (at, event, text) = match job.state {
        State::Running => {
            let at = job.started_at?;
            let late = lasted(job.due_at, at);
            (at, "running", format!("run {} started in {worker}, {late} after it was due", job.runs))
        }
        State::Done => {
            let at = job.ended_at?;
            let times = job.started_at.map(|started| {
                let (run, late) = (lasted(started, at), lasted(job.due_at, started));
                format!(" after {run}; it had started {late} after it was due")
            });
            (at, "done", format!("run {} ended in {worker}{}", job.runs, times.unwrap_or_default()))
        }
        State::Cancelled if job.last_error.as_deref() != Some(CANCELLED) => {
            let text = format!("discarded by an operator; the actions on {} say by whom and why", job.queue);
            (job.ended_at?, "discarded", text)
        }
        State::Waiting | State::Dead | State::Cancelled | State::Unknown => return None,
    };
    Some(JobEvent { at, event, text, details })
}

/// The time between two events; never negative, because clocks may step.
fn lasted(from: OffsetDateTime, to: OffsetDateTime) -> String {
    match (to - from).as_seconds_f64().max(0.0) {
        seconds if seconds < 10.0 => format!("{:.0} ms", seconds * 1000.0),
        seconds => format_duration(seconds),
    }
}

/// Parses a time as PostgreSQL writes it in JSON, with the offset of the session.
fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()?.checked_to_offset(UtcOffset::UTC)
}

/// The one spelling of times in events: RFC 3339 with `Z`.
fn format_time(at: OffsetDateTime) -> Option<String> {
    at.format(&Rfc3339).ok()
}

/// A time for a sentence. What is no time stays as it is.
fn to_second(text: &str) -> String {
    let at = parse_time(text).and_then(|at| at.replace_nanosecond(0).ok());
    at.and_then(format_time).unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn job(state: State) -> JobStatus {
        JobStatus {
            id: "01KAJ3V1J4SJ9T7YQ0M2C6Z8XB".into(),
            queue: "q".into(),
            state,
            priority: 0,
            runs: 3,
            failures: 0,
            crashes: 0,
            due_at: datetime!(2026-11-28 12:00 UTC),
            due_in_seconds: 0.0,
            worker: Some("w-1".into()),
            started_at: Some(datetime!(2026-11-28 12:00:01 UTC)),
            ended_at: Some(datetime!(2026-11-28 12:00:03 UTC)),
            error_group: None,
            key: None,
            last_error: None,
            correlation_id: None,
            traceparent: None,
        }
    }

    #[test]
    fn every_kind_of_entry_is_an_event_in_the_order_of_time() {
        let errors = json!([
            {"at": "2026-11-28T11:00:01+00:00", "run": 1, "worker": "w-0", "started": "2026-11-28T11:00:00+00:00", "error": "503"},
            {"at": "2026-11-28T11:20:00+00:00", "run": 2, "worker": "w-0", "error": WORKER_DIED},
            {"at": "2026-11-28T11:40:00+00:00", "run": 2, "worker": null, "error": CANCELLED},
            {"at": "2026-11-28T11:45:02+00:00", "run": 2, "worker": "w-0", "started": "2026-11-28T11:45:00+00:00", "error": CANCELLED},
            7,
        ]);
        let events = json!([
            {"at": "2026-11-28T11:10:00+00:00", "event": "snoozed", "run": 2, "worker": "w-0", "until": "T", "reason": "busy"},
            {"at": "2026-11-28T11:15:00+00:00", "event": "snoozed", "run": 2, "until": "T", "times": 4, "first_at": "F"},
            {"at": "2026-11-28T11:30:00+00:00", "event": "given_back", "run": 2},
            {"at": "2026-11-28T11:46:00+00:00", "event": "failed", "error": "the account is closed"},
            {"at": "2026-11-28T11:50:00+00:00", "event": "replayed", "by": "ada", "replay": "r"},
            {"at": "2026-11-28T11:50:00+00:00", "event": "of another program"},
        ]);
        let acts = json!([
            {"at": "2026-11-28T11:55:00+00:00", "actor": "ada", "action": "replay", "reason": "it is back"},
            {"at": "2026-11-28T11:40:01+00:00", "actor": "bob", "action": "cancel", "reason": "sent twice"},
            {"at": "2026-11-28T11:40:01+00:00", "actor": "of another program"},
        ]);
        let without_acts = history(&job(State::Done), &errors, &events, &Value::Null);
        assert!(without_acts.iter().any(|event| (event.event, &*event.text) == ("cancelled", CANCELLED)));
        let history = history(&job(State::Done), &errors, &events, &acts);
        let seen: Vec<(&str, &str)> = history.iter().map(|event| (event.event, &*event.text)).collect();
        assert_eq!(
            seen,
            [
                ("enqueued", "enqueued"),
                ("run_failed", "run 1 failed after 1000 ms: 503"),
                ("snoozed", "run 2 snoozed it until T: busy"),
                ("snoozed", "snoozed 4 times since F, last by run 2 until T"),
                ("rescued", "run 2 was rescued: its worker w-0 died"),
                ("given_back", "run 2 was given back, because its worker stopped"),
                ("cancelled", "cancelled by bob: sent twice"),
                ("cancelled", "run 2 in w-0 was aborted after 2000 ms: cancelled by operator"),
                ("failed", "it failed for good: the account is closed"),
                ("replayed", "replayed by ada with the replay r"),
                ("replayed", "replayed by ada: it is back"),
                ("done", "run 3 ended in w-1 after 2000 ms; it had started 1000 ms after it was due"),
            ]
        );
    }

    #[test]
    fn times_have_one_spelling_in_details_and_in_sentences() {
        let events = json!([{
            "at": "2026-11-28T12:10:00.5+01:00", "event": "snoozed", "run": 2, "due": "2026-11-28T11:09:59.25+00:00",
            "started": "2026-11-28T12:10:00+01:00", "until": "2026-11-28T11:20:00.123456+00:00", "times": 2,
            "first_at": "2026-11-28T11:00:00.654321+00:00",
        }]);
        let history = history(&job(State::Waiting), &Value::Null, &events, &Value::Null);
        let [_, snoozed] = &history[..] else { panic!("two events: {history:?}") };
        assert_eq!(snoozed.at, datetime!(2026-11-28 11:10:00.5 UTC));
        assert_eq!(
            snoozed.text,
            "snoozed 2 times since 2026-11-28T11:00:00Z, last by run 2 until 2026-11-28T11:20:00Z"
        );
        let expected = json!({
            "run": 2, "due": "2026-11-28T11:09:59.25Z", "started": "2026-11-28T11:10:00Z", "times": 2,
            "until": "2026-11-28T11:20:00.123456Z", "first_at": "2026-11-28T11:00:00.654321Z",
        });
        assert_eq!(snoozed.details, expected);
    }

    #[test]
    fn only_the_newest_events_are_kept() {
        let event = |n: usize| json!({"at": format!("2026-11-28T11:00:{n:02}Z"), "event": "given_back", "run": n});
        let events: Value = (0..30).map(event).collect();
        let history = history(&job(State::Running), &Value::Null, &events, &Value::Null);
        assert_eq!((history.len(), history[0].details["run"].as_i64()), (NEWEST, Some(11)));
        assert_eq!(history[NEWEST - 1].text, "run 3 started in w-1, 1000 ms after it was due");
    }
}
