//! The endpoints of queues: overview, state, history, pause and resume.

use jobs::overview;
use poem_openapi::{OpenApi, param::Path};
use queue::{operator::pauses, status};

use super::{
    QueuesApi,
    actor::Actor,
    check_name, conflict, not_found,
    wire::{
        ActedResponse,
        input::{Pausing, Reason},
        json,
        queues::{Overview, QueueDetails, QueueStatus, QueueView},
    },
};
use crate::{
    auth::{Admin, Viewer},
    problem::{Failure, errors},
    tags::Tag,
    validation::{AllValid, Body},
    wire::{Json, responses},
};

/// The detail of a 404.
const UNKNOWN: &str = "Unknown queue";
/// The largest number of actions in the history of a queue.
const HISTORY: u32 = 50;

responses! {
    /// The state of all queues.
    OverviewResponse = 200 Json<Overview>;

    /// Every queue that has jobs, workers or a pause.
    QueuesResponse = 200 Json<Vec<QueueStatus>>;

    /// The queue and its history.
    QueueResponse = 200 Json<QueueDetails>;
}

errors! {
    Reading: [401, 403, 429, 503];
    Finding: [401, 403, 404, 429, 503];
    PausingErrors: [400, 401, 403, 404, 408, 413, 415, 422, 429, 503];
    Resuming: [400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Operators")]
impl QueuesApi {
    /// Get the overview
    ///
    /// What is wrong, and of each queue its jobs, rates, the time until no due job is left, and the number of workers
    /// that it needs. Its cost has a bound, however many jobs there are.
    #[oai(path = "/admin/queue/overview", method = "get", operation_id = "get_queue_overview")]
    async fn overview(&self, caller: Viewer) -> Result<OverviewResponse, Failure<Reading>> {
        self.0.read(&caller).await?;
        let overview = overview::read(&self.0.views).await?;
        Ok(OverviewResponse::Ok(json(&overview)?))
    }

    /// List queues
    #[oai(path = "/admin/queue/queues", method = "get", operation_id = "list_queues")]
    async fn list(&self, caller: Viewer) -> Result<QueuesResponse, Failure<Reading>> {
        let queues: Vec<status::QueueStatus> = self.0.read(&caller).await?.queues().await?;
        Ok(QueuesResponse::Ok(json(&queues)?))
    }

    /// Get a queue
    ///
    /// The queue as in the overview, why its jobs wait, and the newest 50 actions of operators on it.
    #[oai(path = "/admin/queue/queues/:name", method = "get", operation_id = "get_queue")]
    async fn get(
        &self,
        caller: Viewer,
        /// The name of the queue.
        name: Path<String>,
    ) -> Result<QueueResponse, Failure<Finding>> {
        let operator = self.0.read(&caller).await?;
        let name = check_name(&name.0, UNKNOWN)?;
        let queue = operator.queue_overview(name).await?.ok_or_else(|| not_found(UNKNOWN))?;
        let actions = operator.actions(name, HISTORY).await?;
        Ok(QueueResponse::Ok(json(&QueueView { checks: queue.checks(), queue, actions })?))
    }

    /// Pause a queue
    ///
    /// No job of the queue is claimed until it resumes; running jobs continue. With `until` it resumes by itself. For a
    /// paused queue only the reason, the actor and the end change.
    #[oai(path = "/admin/queue/queues/:name/pause", method = "post", operation_id = "pause_queue")]
    async fn pause(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        /// The name of the queue.
        name: Path<String>,
        body: Body<Pausing>,
    ) -> Result<ActedResponse, Failure<PausingErrors>> {
        let operator = self.0.act(&caller).await?;
        let (actor, pausing) = (actor.0, body.read()).all_valid()?;
        let order = actor.order(&caller, &pausing.reason)?;
        let name = check_name(&name.0, UNKNOWN)?;
        match operator.pause(name, pausing.until, &order).await? {
            pauses::Pausing::Paused => Ok(ActedResponse::new(order, "pause", name, "paused")?),
            pauses::Pausing::UnknownQueue => Err(not_found(UNKNOWN).into()),
            pauses::Pausing::EndIsPast => Err(pausing.end_is_past().into()),
        }
    }

    /// Resume a queue
    ///
    /// 404 for an unknown queue, 409 if it was not paused.
    #[oai(path = "/admin/queue/queues/:name/resume", method = "post", operation_id = "resume_queue")]
    async fn resume(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        /// The name of the queue.
        name: Path<String>,
        body: Body<Reason>,
    ) -> Result<ActedResponse, Failure<Resuming>> {
        let operator = self.0.act(&caller).await?;
        let (actor, Reason { reason }) = (actor.0, body.read()).all_valid()?;
        let order = actor.order(&caller, &reason)?;
        let name = check_name(&name.0, UNKNOWN)?;
        if operator.resume(name, &order).await? {
            return Ok(ActedResponse::new(order, "resume", name, "resumed")?);
        }
        let is_known = operator.queues().await?.iter().any(|queue| queue.name == name);
        let refused = if is_known { conflict("The queue is not paused.") } else { not_found(UNKNOWN) };
        Err(refused.into())
    }
}
