//! Wire types of the operators' endpoints: parameters, bodies, and the schemas of responses.
//!
//! A response is a value of the service, or a view made of such values. The types with [`Object`] describe it in
//! `openapi.json` and are never built; a test compares them with real responses.

pub(super) mod callbacks;
pub(super) mod capacity;
pub(super) mod database;
pub(super) mod filter;
pub(super) mod input;
pub(super) mod jobs;
pub(super) mod queues;
pub(super) mod replays;
pub(super) mod schedules;
pub(super) mod workers;

use poem_openapi::{ApiResponse, Object, registry::MetaSchema};
use queue::operator::audit::Order;
use serde::Serialize;

use crate::{
    problem::Problem,
    wire::{Json, Nullable, Timestamp, encode, openapi_response_type},
};

/// A response that the schema of `T` describes.
///
/// # Errors
/// 500 if the value cannot be serialised as JSON.
pub(super) fn json<T>(value: &impl Serialize) -> Result<Json<T>, Problem> {
    encode(value).map(Json::from_body)
}

/// JSON of any form.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct FreeJson(serde_json::Value);

openapi_response_type!(FreeJson, "free_json", MetaSchema::ANY);

/// The response to an action.
#[derive(ApiResponse)]
pub(super) enum ActedResponse {
    /// It is done and recorded.
    #[oai(status = 200)]
    Ok(Json<Acted>),
}

impl ActedResponse {
    /// The response to an action that this order caused.
    ///
    /// # Errors
    /// 500 if it cannot be serialised as JSON.
    pub(super) fn new(order: Order, action: &str, target: &str, result: &str) -> Result<Self, Problem> {
        let acted = Acted {
            action: action.to_owned(),
            target: target.to_owned(),
            actor: order.actor,
            reason: order.reason,
            result: result.to_owned(),
        };
        Ok(Self::Ok(Json::new(&acted)?))
    }
}

/// What an operator did, as it is recorded.
#[derive(Object, Serialize)]
#[oai(rename = "OperatorActionResult")]
pub(super) struct Acted {
    /// A verb, such as `pause`.
    action: String,
    /// The queue, job, worker, schedule or destination of callbacks.
    target: String,
    actor: String,
    reason: String,
    /// The effect, such as `paused`.
    result: String,
}

/// One recorded action.
#[derive(Object)]
#[oai(rename = "OperatorAction")]
pub(super) struct Action {
    id: i64,
    at: Timestamp,
    actor: String,
    /// `board`, `http`, `cli` or `worker`.
    via: String,
    /// A verb, such as `pause`.
    action: String,
    /// The queue, job, worker, replay, schedule or destination of callbacks.
    target: String,
    /// Which jobs of the queue, or details of the action; null for one target.
    filter: Nullable<FreeJson>,
    reason: String,
    /// How many targets were changed.
    count: i64,
}

/// What a search found.
#[derive(Object)]
pub(super) struct Found {
    /// `job`, `transaction`, `item` or `replay`.
    kind: String,
    id: String,
    /// A sentence about it.
    text: String,
}

/// What happened to a transaction.
#[derive(Object)]
#[oai(rename = "TransactionTimeline")]
pub(super) struct Timeline {
    /// The sender's id.
    transaction_id: String,
    /// Our id.
    id: String,
    /// The id of its job.
    job: String,
    status: String,
    /// How many webhooks contradicted it, with any payload. The first 20 different payloads have events.
    conflicts: i64,
    /// Oldest first.
    events: Vec<TimelineEvent>,
}

/// One event of a transaction.
#[derive(Object)]
struct TimelineEvent {
    at: Timestamp,
    /// `accepted`, `replay`, `conflict`, `due`, `processed`, `failed`, `callback`, `operator`, or an event of its job.
    event: String,
    /// A sentence.
    text: String,
    /// Its fields depend on the event.
    details: FreeJson,
}
