//! The timeline of one transaction, for operators: everything that is known to have happened to it, oldest first.

use serde::Serialize;
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{
    Status, Transaction, Transactions,
    callbacks::{
        model::label,
        store::{self as callbacks, CallbackRow},
    },
    store::replays::{self, Repetition},
};
use queue::{
    JobId, Operator,
    operator::audit::Action,
    status::{JobDetails, JobEvent, State},
};
use runtime::error::Error;

/// At most so many of an operator's actions are shown.
const ACTIONS: u32 = 100;

/// What happened to one transaction.
#[derive(Debug, Clone, Serialize)]
pub struct Timeline {
    /// The sender's id.
    pub transaction_id: String,
    /// The internal id.
    pub id: Uuid,
    /// The id of its job.
    pub job: String,
    pub status: &'static str,
    /// How many webhooks contradicted it, with any payload. The first 20 different payloads have events.
    pub conflicts: i64,
    /// Oldest first.
    pub events: Vec<TimelineEvent>,
}

/// One thing that happened: `accepted`, `replay`, `conflict`, `due`, `processed`, `failed`, `callback`, `operator`, or an
/// event of its job.
pub type TimelineEvent = JobEvent;

impl Transactions {
    /// The timeline of the transaction with this id; `None` if it is unknown. Runs are known while the job is kept: a day
    /// after it is done, a month after it died.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn timeline(&self, operator: &Operator, transaction_id: &str) -> Result<Option<Timeline>, Error> {
        // Not `find`: it would also read when the job is due, which `show` does.
        let Some(transaction) = self.finds.call(transaction_id.to_owned()).await? else { return Ok(None) };
        let job_id = JobId::from(transaction.id).to_string();
        let job = operator.show(&job_id).await?;
        let repetitions = replays::repetitions(&self.pool, transaction_id).await?;
        let callbacks = callbacks::of_transaction(&self.pool, transaction.id).await?;
        let actions = operator.actions(&job_id, ACTIONS).await?;
        let conflicts = repetitions.iter().find_map(|one| one.conflicts).unwrap_or(0);
        let mut events = vec![accepted(&transaction, job.as_ref())];
        events.extend(repetitions.iter().map(repetition));
        events.extend(job.iter().flat_map(runs));
        events.extend(actions.into_iter().map(operator_event));
        events.extend(settled(&transaction));
        events.extend(callbacks.iter().flat_map(callback));
        events.sort_by_key(|event| event.at);
        let status = transaction.status.into_str();
        Ok(Some(Timeline {
            transaction_id: transaction.transaction_id,
            id: transaction.id,
            job: job_id,
            status,
            conflicts,
            events,
        }))
    }
}

fn accepted(transaction: &Transaction, job: Option<&JobDetails>) -> TimelineEvent {
    let of_job = || job.and_then(|details| details.job.correlation_id.clone());
    let correlation_id = transaction.correlation_id.clone().or_else(of_job);
    let trace_id = transaction.trace_id.map(|id| id.simple().to_string());
    TimelineEvent {
        at: transaction.created_at,
        event: "accepted",
        text: "the webhook was accepted and its job enqueued, in one commit".into(),
        details: json!({"correlation_id": correlation_id, "trace_id": trace_id, "sender": transaction.sender}),
    }
}

/// The replays, or the conflicts with one payload.
fn repetition(Repetition { fields, times, first_at, last_at, correlation_id, .. }: &Repetition) -> TimelineEvent {
    let at = *first_at;
    if let Some(fields) = fields {
        let names = fields.join(", ");
        let times_text = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
        return TimelineEvent {
            at,
            event: "conflict",
            text: format!("received {times_text} with another {names}; the first payload stands"),
            details: json!({"fields": fields, "times": times, "correlation_id": correlation_id}),
        };
    }
    let last = last_at.format(&Rfc3339).unwrap_or_default();
    let again = if *times == 1 { "once more".to_owned() } else { format!("{times} more times, last at {last},") };
    TimelineEvent {
        at,
        event: "replay",
        text: format!("received {again} with the same payload"),
        details: json!({"times": times, "last_at": last}),
    }
}

/// The runs of the job that are known, and when the next or the last one is due.
fn runs(details: &JobDetails) -> Vec<TimelineEvent> {
    let job = &details.job;
    // The commit of the webhook enqueued it, and that has its own event. So do the orders of operators. A run that one of them
    // aborted has a worker and no reason.
    let is_order =
        |event: &JobEvent| matches!(event.event, "replayed" | "cancelled") && event.details["reason"].is_string();
    let history = details.events.iter().filter(|event| event.event != "enqueued" && !is_order(event));
    let mut events: Vec<TimelineEvent> = history.cloned().collect();
    let due = match job.state {
        State::Waiting if job.due_in_seconds > 0.0 => Some(("the next run is due", json!({"why": details.why}))),
        State::Waiting => Some(("its job is due", json!({"why": details.why}))),
        State::Running | State::Done | State::Dead if job.runs > 0 => Some(("its last run was due", json!({}))),
        _ => None,
    };
    events.extend(due.map(|(text, details)| TimelineEvent {
        at: job.due_at,
        event: "due",
        text: text.into(),
        details,
    }));
    events
}

fn operator_event(action: Action) -> TimelineEvent {
    TimelineEvent {
        at: action.at,
        event: "operator",
        text: format!("{} by {}: {}", action.action, action.actor, action.reason),
        details: json!({"actor": action.actor, "via": action.via, "action": action.action}),
    }
}

/// What happened to one callback: it was enqueued, and perhaps delivered or given up.
fn callback(row: &CallbackRow) -> Vec<TimelineEvent> {
    let (to, tries) = (label(&row.destination), row.attempts);
    let details = json!({"callback": row.id, "destination": row.destination, "kind": row.kind, "attempts": tries,
                         "status": row.last_status, "error": row.last_error});
    let event = |at, text| TimelineEvent { at, event: "callback", text, details: details.clone() };
    let mut events = vec![event(row.created_at, format!("its callback to {to} was enqueued with the settlement"))];
    if let Some(at) = row.delivered_at {
        let status = row.last_status.unwrap_or_default();
        events.push(event(at, format!("its callback to {to} was delivered: status {status}, after {tries} tries")));
    }
    if let Some(at) = row.gave_up_at {
        let error = row.last_error.as_deref().unwrap_or_default();
        events.push(event(at, format!("its callback to {to} was given up after {tries} tries: {error}")));
    }
    events
}

fn settled(transaction: &Transaction) -> Option<TimelineEvent> {
    let at = transaction.processed_at?;
    Some(match transaction.status {
        Status::Failed => TimelineEvent {
            at,
            event: "failed",
            text: format!("it failed for good: {}", transaction.error.as_deref().unwrap_or_default()),
            details: json!({"error": transaction.error}),
        },
        Status::Processed | Status::Processing => {
            TimelineEvent { at, event: "processed", text: "it was processed".into(), details: json!({}) }
        }
    })
}
