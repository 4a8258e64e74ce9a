//! The endpoints of replays: progress, pause, resume and stop.

use poem_openapi::{OpenApi, param::Path};
use queue::operator::replays::ReplayChange;
use uuid::Uuid;

use super::{
    ReplaysApi,
    actor::Actor,
    conflict, not_found,
    wire::{
        input::Reason,
        json,
        replays::{Replay, ReplayId},
    },
};
use crate::{
    auth::{Admin, Viewer},
    link::next_link,
    page::Limit,
    problem::{Failure, Problem, errors},
    tags::Tag,
    validation::{AllValid, Body, Query},
    wire::{Json, responses},
};

/// The detail of a 404.
const UNKNOWN: &str = "Unknown replay";

responses! {
    /// One page, newest first.
    ReplaysResponse = 200 Json<Vec<Replay>> {
        /// The next page as `<…>; rel="next"`; absent on the last page.
        "Link": Option<String>,
    };

    /// The replay as it now stands.
    ReplayResponse = 200 Json<Replay>;
}

errors! {
    Listing: [401, 403, 422, 429, 503];
    Finding: [401, 403, 404, 429, 503];
    Changing: [400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Operators")]
impl ReplaysApi {
    /// List replays
    ///
    /// Newest first.
    #[oai(path = "/admin/queue/replays", method = "get", operation_id = "list_replays")]
    async fn list(
        &self,
        caller: Viewer,
        /// List only replays before this id.
        before: Query<Option<ReplayId>>,
        /// The largest number of replays on the page.
        limit: Query<Limit>,
    ) -> Result<ReplaysResponse, Failure<Listing>> {
        let operator = self.0.read(&caller).await?;
        let (before, limit) = (before.0, limit.0).all_valid()?;
        let page = operator.replays(before, limit.into()).await?;
        let link = page.next.map(|next| {
            let (limit, before) = (limit.to_string(), next.to_string());
            next_link("/admin/queue/replays", &[("limit", Some(&limit)), ("before", Some(&before))])
        });
        Ok(ReplaysResponse::Ok(json(&page.rows)?, link))
    }

    /// Get a replay
    #[oai(path = "/admin/queue/replays/:id", method = "get", operation_id = "get_replay")]
    async fn get(
        &self,
        caller: Viewer,
        /// The id of the replay.
        id: Path<String>,
    ) -> Result<ReplayResponse, Failure<Finding>> {
        let operator = self.0.read(&caller).await?;
        let replay = operator.find_replay(parse_id(&id.0)?).await?.ok_or_else(|| not_found(UNKNOWN))?;
        Ok(ReplayResponse::Ok(json(&replay)?))
    }

    /// Pause a replay
    ///
    /// No further batch of it waits again until it resumes. 409 if it is not running.
    #[oai(path = "/admin/queue/replays/:id/pause", method = "post", operation_id = "pause_replay")]
    async fn pause(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        /// The id of the replay.
        id: Path<String>,
        body: Body<Reason>,
    ) -> Result<ReplayResponse, Failure<Changing>> {
        Ok(self.change(&caller, actor, &id.0, &body, ReplayChange::Pause).await?)
    }

    /// Resume a replay
    ///
    /// 409 if it is not paused.
    #[oai(path = "/admin/queue/replays/:id/resume", method = "post", operation_id = "resume_replay")]
    async fn resume(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        /// The id of the replay.
        id: Path<String>,
        body: Body<Reason>,
    ) -> Result<ReplayResponse, Failure<Changing>> {
        Ok(self.change(&caller, actor, &id.0, &body, ReplayChange::Resume).await?)
    }

    /// Stop a replay
    ///
    /// For good. Jobs that wait again already still run. 409 if it has ended.
    #[oai(path = "/admin/queue/replays/:id/stop", method = "post", operation_id = "stop_replay")]
    async fn stop(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        /// The id of the replay.
        id: Path<String>,
        body: Body<Reason>,
    ) -> Result<ReplayResponse, Failure<Changing>> {
        Ok(self.change(&caller, actor, &id.0, &body, ReplayChange::Stop).await?)
    }
}

impl ReplaysApi {
    async fn change(
        &self,
        caller: &Admin,
        actor: Actor,
        id: &str,
        body: &Body<Reason>,
        change: ReplayChange,
    ) -> Result<ReplayResponse, Problem> {
        let operator = self.0.act(caller).await?;
        let (actor, Reason { reason }) = (actor.0, body.read()).all_valid()?;
        let order = actor.order(caller, &reason)?;
        let id = parse_id(id)?;
        let changed = operator.change_replay(id, change, &order).await?;
        let replay = operator.find_replay(id).await?.ok_or_else(|| not_found(UNKNOWN))?;
        if changed { Ok(ReplayResponse::Ok(json(&replay)?)) } else { Err(conflict(refusal(change))) }
    }
}

fn refusal(change: ReplayChange) -> &'static str {
    match change {
        ReplayChange::Pause => "The replay is not running.",
        ReplayChange::Resume => "The replay is not paused.",
        ReplayChange::Stop => "The replay has ended already.",
    }
}

/// Parses the id in a path.
///
/// # Errors
/// 404, because no replay has another form of id.
fn parse_id(text: &str) -> Result<Uuid, Problem> {
    Uuid::parse_str(text).map_err(|_| not_found(UNKNOWN))
}
