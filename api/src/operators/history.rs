//! The endpoints that find things and tell their history: actions of operators, look-ups by any id, and timelines.

use poem_openapi::{OpenApi, param::Path};

use super::{
    HistoryApi, check_name, not_found,
    wire::{Action, Found, Timeline, input::TextParam, json},
};
use crate::{
    auth::Viewer,
    link::next_link,
    page::Limit,
    problem::{Failure, errors},
    tags::Tag,
    validation::{AllValid, Integer, Query},
    wire::{Json, responses},
};

responses! {
    /// One page, newest first.
    ActionsResponse = 200 Json<Vec<Action>> {
        /// The next page as `<…>; rel="next"`; absent on the last page.
        "Link": Option<String>,
    };

    /// Everything that has this id; empty if there is nothing.
    FoundResponse = 200 Json<Vec<Found>>;

    /// The events, oldest first.
    TimelineResponse = 200 Json<Timeline>;
}

errors! {
    Listing: [401, 403, 422, 429, 503];
    Finding: [401, 403, 404, 429, 503];
}

#[OpenApi(tag = "Tag::Operators")]
impl HistoryApi {
    /// List actions of operators
    ///
    /// Newest first. Every action is recorded in the transaction that does it.
    #[oai(path = "/admin/queue/actions", method = "get", operation_id = "list_actions")]
    async fn actions(
        &self,
        caller: Viewer,
        /// List only actions on this queue, job, worker, replay or schedule.
        target: Query<Option<TextParam<500>>>,
        /// List only actions before this id.
        before: Query<Option<Integer<1, { i64::MAX }>>>,
        /// The largest number of actions on the page.
        limit: Query<Limit>,
    ) -> Result<ActionsResponse, Failure<Listing>> {
        let operator = self.0.read(&caller).await?;
        let (target, before, limit) = (target.0, before.0, limit.0).all_valid()?;
        let page = operator.list_actions(target.as_deref(), before, limit.into()).await?;
        let link = page.next.map(|next| {
            let (limit, before) = (limit.to_string(), next.to_string());
            let parameters = [("target", target.as_deref()), ("limit", Some(&limit)), ("before", Some(&before))];
            next_link("/admin/queue/actions", &parameters)
        });
        Ok(ActionsResponse::Ok(json(&page.rows)?, link))
    }

    /// Find by id
    ///
    /// Exact look-ups: the id of a job, the sender's id of a transaction or its UUID, the UUID of a replay, the number of
    /// an item; and at most 20 transactions that came with this correlation id or this trace id (32 hexadecimal digits).
    #[oai(path = "/admin/queue/find", method = "get", operation_id = "find_by_id")]
    async fn find(
        &self,
        caller: Viewer,
        /// The id.
        q: Query<TextParam<500>>,
    ) -> Result<FoundResponse, Failure<Listing>> {
        self.0.read(&caller).await?;
        let found = self.0.views.find(&q.0?).await?;
        Ok(FoundResponse::Ok(json(&found)?))
    }

    /// Get the timeline of a transaction
    ///
    /// What is known to have happened to it, oldest first: accepted, replays, conflicts, when it was due, its runs and
    /// snoozes, the settlement, callbacks, and the actions of operators. Runs are known while the job is kept.
    #[oai(
        path = "/v1/transactions/:transaction_id/timeline",
        method = "get",
        operation_id = "get_transaction_timeline"
    )]
    async fn timeline(
        &self,
        caller: Viewer,
        /// The sender's id, percent-encoded.
        transaction_id: Path<String>,
    ) -> Result<TimelineResponse, Failure<Finding>> {
        self.0.read(&caller).await?;
        const UNKNOWN: &str = "Transaction not found";
        let id = check_name(&transaction_id.0, UNKNOWN)?;
        let timeline = self.0.views.timeline(id).await?.ok_or_else(|| not_found(UNKNOWN))?;
        Ok(TimelineResponse::Ok(json(&timeline)?))
    }
}
