//! The endpoints of workers: list, show what one holds, and drain.

use poem_openapi::{OpenApi, param::Path};

use super::{
    WorkersApi,
    actor::Actor,
    check_name, not_found,
    wire::{
        ActedResponse,
        input::{Reason, TextParam},
        json,
        workers::{Worker, WorkerDetails, WorkerLimit, WorkerView},
    },
};
use crate::{
    auth::{Admin, Viewer},
    link::next_link,
    problem::{Failure, errors},
    tags::Tag,
    validation::{AllValid, Body, Query},
    wire::{Json, responses},
};

/// The detail of a 404.
const UNKNOWN: &str = "Unknown worker";
/// The largest number of jobs of one worker.
const MAX_HELD: u32 = 100;

responses! {
    /// One page, live ones first.
    WorkersResponse = 200 Json<Vec<Worker>> {
        /// The next page as `<…>; rel="next"`; absent on the last page.
        "Link": Option<String>,
    };

    /// The worker and its jobs.
    WorkerResponse = 200 Json<WorkerDetails>;
}

errors! {
    Listing: [401, 403, 422, 429, 503];
    Finding: [401, 403, 404, 429, 503];
    Draining: [400, 401, 403, 404, 408, 413, 415, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Operators")]
impl WorkersApi {
    /// List workers
    ///
    /// Pages are in the order of the ids; on each page live workers come first.
    #[oai(path = "/admin/queue/workers", method = "get", operation_id = "list_workers")]
    async fn list(
        &self,
        caller: Viewer,
        /// List only workers after this id.
        after: Query<Option<TextParam<500>>>,
        /// The largest number of workers on the page.
        limit: Query<WorkerLimit>,
    ) -> Result<WorkersResponse, Failure<Listing>> {
        let operator = self.0.read(&caller).await?;
        let (after, limit) = (after.0, limit.0).all_valid()?;
        let page = operator.list_workers(after.as_deref(), limit).await?;
        let link = page.next.as_deref().map(|next| {
            let limit = limit.to_string();
            next_link("/admin/queue/workers", &[("limit", Some(&limit)), ("after", Some(next))])
        });
        Ok(WorkersResponse::Ok(json(&page.rows)?, link))
    }

    /// Get a worker
    ///
    /// With the jobs that it holds, longest run first, at most 100.
    #[oai(path = "/admin/queue/workers/:id", method = "get", operation_id = "get_worker")]
    async fn get(
        &self,
        caller: Viewer,
        /// The id of the worker.
        id: Path<String>,
    ) -> Result<WorkerResponse, Failure<Finding>> {
        let operator = self.0.read(&caller).await?;
        let id = check_name(&id.0, UNKNOWN)?;
        let worker = operator.find_worker(id).await?.ok_or_else(|| not_found(UNKNOWN))?;
        let held = operator.held_by(id, MAX_HELD).await?;
        Ok(WorkerResponse::Ok(json(&WorkerView { worker, held })?))
    }

    /// Drain a worker
    ///
    /// With its next heartbeat the worker stops claiming; it ends when its jobs have ended.
    #[oai(path = "/admin/queue/workers/:id/drain", method = "post", operation_id = "drain_worker")]
    async fn drain(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        /// The id of the worker.
        id: Path<String>,
        body: Body<Reason>,
    ) -> Result<ActedResponse, Failure<Draining>> {
        let operator = self.0.act(&caller).await?;
        let (actor, Reason { reason }) = (actor.0, body.read()).all_valid()?;
        let order = actor.order(&caller, &reason)?;
        let id = check_name(&id.0, UNKNOWN)?;
        if !operator.drain_worker(id, &order).await? {
            return Err(not_found(UNKNOWN).into());
        }
        Ok(ActedResponse::new(order, "drain", id, "requested")?)
    }
}
