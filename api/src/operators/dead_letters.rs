//! The endpoints of dead letters: groups by error, replay and discard.

use poem_openapi::{ApiResponse, OpenApi};
use queue::{
    Operator,
    operator::replays::{Selected as Selection, Selection as Filter, StartedReplay},
};

use super::{
    DeadLettersApi,
    actor::Actor,
    conflict, not_found,
    wire::{
        input::{Discarding, Replaying, TextParam},
        json,
        replays::{Discarded, DiscardedView, ErrorGroup, Replay, Selected},
    },
};
use crate::{
    auth::{Admin, Viewer},
    problem::{Failure, Problem, errors},
    tags::Tag,
    validation::{AllValid, Body, Query},
    wire::{Json, responses},
};

responses! {
    /// The groups, largest first, at most 200.
    GroupsResponse = 200 Json<Vec<ErrorGroup>>;

    /// The dead letters are cancelled for good, or with `dry_run` only counted.
    DiscardResponse = 200 Json<Discarded>;
}

#[derive(ApiResponse)]
enum ReplayResponse {
    /// With `dry_run`: the selected dead letters. Nothing was changed.
    #[oai(status = 200)]
    Selected(Json<Selected>),
    /// The replay has started.
    #[oai(status = 202)]
    Started(
        Json<Replay>,
        /// The path of the replay.
        #[oai(header = "Location")]
        String,
    ),
}

errors! {
    Grouping: [401, 403, 422, 429, 503];
    Starting: [400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503];
    Changing: [400, 401, 403, 404, 408, 413, 415, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Operators")]
impl DeadLettersApi {
    /// List dead letters by error
    ///
    /// Errors that differ only in numbers, ids and quoted parts are one group. Its cost has a bound, however many dead
    /// letters there are.
    #[oai(path = "/admin/queue/dead", method = "get", operation_id = "list_dead_letters")]
    async fn groups(
        &self,
        caller: Viewer,
        /// List only dead letters of this queue.
        queue: Query<Option<TextParam<500>>>,
    ) -> Result<GroupsResponse, Failure<Grouping>> {
        let operator = self.0.read(&caller).await?;
        let groups = operator.dead_groups(queue.0?.as_deref()).await?;
        Ok(GroupsResponse::Ok(json(&groups)?))
    }

    /// Replay dead letters
    ///
    /// Makes the selected dead letters wait again, at a rate. A canary goes first; the replay stops by itself when too
    /// many jobs die again. It is a job of the queue, so it continues after a restart. Jobs that die later are not taken.
    /// 404 if no dead letter is selected; 409 if some were already replayed twice or more and `include_replayed` is not set.
    #[oai(path = "/admin/queue/dead/replay", method = "post", operation_id = "replay_dead_letters")]
    async fn replay(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        body: Body<Replaying>,
    ) -> Result<ReplayResponse, Failure<Starting>> {
        let operator = self.0.act(&caller).await?;
        let (actor, body) = (actor.0, body.read()).all_valid()?;
        let Replaying { selection, pace, reason, dry_run } = body;
        let order = actor.order(&caller, &reason)?;
        let selected = select(operator, &selection).await?;
        if dry_run {
            return Ok(ReplayResponse::Selected(json(&selected)?));
        }
        let replay = match operator.start_replay(&selection, pace, &order).await? {
            StartedReplay::Started(replay) => *replay,
            StartedReplay::ReplayedBefore(count) => Err(conflict(format!(
                "{count} of the selected jobs were already replayed twice or more. To replay them again, set \
                 include_replayed.",
            )))?,
        };
        let location = format!("/admin/queue/replays/{}", replay.id);
        Ok(ReplayResponse::Started(json(&replay)?, location))
    }

    /// Discard dead letters
    ///
    /// Cancels the selected dead letters: no later replay by a filter takes them. 404 if no dead letter is selected. After
    /// a 503, some may be discarded already; each batch is recorded.
    #[oai(path = "/admin/queue/dead/discard", method = "post", operation_id = "discard_dead_letters")]
    async fn discard(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        body: Body<Discarding>,
    ) -> Result<DiscardResponse, Failure<Changing>> {
        let operator = self.0.act(&caller).await?;
        let (actor, body) = (actor.0, body.read()).all_valid()?;
        let Discarding { selection, limit, reason, dry_run } = body;
        let order = actor.order(&caller, &reason)?;
        let mut result = DiscardedView::from(select(operator, &selection).await?);
        if !dry_run {
            let count = operator.discard_dead(&selection, limit, &order).await?;
            result = DiscardedView { dry_run: false, count, is_capped: false, ..result };
        }
        Ok(DiscardResponse::Ok(json(&result)?))
    }
}

/// Counts the selected dead letters.
///
/// # Errors
/// 404 without any, because a misspelt queue or error selects none; 503 when the database is unreachable.
async fn select(operator: &Operator, filter: &Filter) -> Result<Selection, Problem> {
    let selected = operator.select_dead(filter).await?;
    if selected.count == 0 { Err(not_found("No dead letter is selected.")) } else { Ok(selected) }
}
