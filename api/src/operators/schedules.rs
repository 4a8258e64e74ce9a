//! The endpoints of schedules: next and past fires with their outcomes, fire now, and skip the next fire.

use poem_openapi::{OpenApi, param::Path};
use queue::schedule::{FirePosition, Skip};
use time::format_description::well_known::Rfc3339;

use super::{
    SchedulesApi,
    actor::Actor,
    check_name, conflict, not_found,
    wire::{
        ActedResponse,
        input::Reason,
        json,
        schedules::{Fire, Schedule},
    },
};
use crate::{
    auth::{Admin, Viewer},
    link::{encoded, next_link},
    page::Limit,
    problem::{Failure, Problem, errors},
    tags::Tag,
    validation::{AllValid, Body, Moment, Query},
    wire::{Json, responses},
};

/// The detail of a 404.
const UNKNOWN: &str = "Unknown schedule";

impl SchedulesApi {
    /// Checks that a schedule exists.
    ///
    /// # Errors
    /// 404 if it does not.
    fn check<'a>(&self, name: &'a str) -> Result<&'a str, Problem> {
        let name = check_name(name, UNKNOWN)?;
        if self.0.app.schedules.names().contains(&name) { Ok(name) } else { Err(not_found(UNKNOWN)) }
    }
}

responses! {
    /// The schedules.
    SchedulesResponse = 200 Json<Vec<Schedule>>;

    /// One page, newest first.
    FiresResponse = 200 Json<Vec<Fire>> {
        /// The next page as `<…>; rel="next"`; absent on the last page.
        "Link": Option<String>,
    };
}

errors! {
    Listing: [401, 403, 429, 503];
    Finding: [401, 403, 404, 422, 429, 503];
    Firing: [400, 401, 403, 404, 408, 413, 415, 422, 429, 503];
    Skipping: [400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Operators")]
impl SchedulesApi {
    /// List schedules
    ///
    /// Each with its next five nominal times and its last 20 fires. The outcome of a fire comes from its jobs.
    #[oai(path = "/admin/queue/schedules", method = "get", operation_id = "list_schedules")]
    async fn list(&self, caller: Viewer) -> Result<SchedulesResponse, Failure<Listing>> {
        self.0.read(&caller).await?;
        let schedules = self.0.app.schedules.overview().await?;
        Ok(SchedulesResponse::Ok(json(&schedules)?))
    }

    /// List fires
    ///
    /// Newest first. A fire that an operator skips is listed before its time.
    #[oai(path = "/admin/queue/schedules/:name/fires", method = "get", operation_id = "list_fires")]
    async fn fires(
        &self,
        caller: Viewer,
        /// The name of the schedule.
        name: Path<String>,
        /// List only fires before this nominal time.
        before: Query<Option<Moment>>,
        /// The largest number of fires on the page.
        limit: Query<Limit>,
    ) -> Result<FiresResponse, Failure<Finding>> {
        self.0.read(&caller).await?;
        let (before, limit) = (before.0, limit.0).all_valid()?;
        let name = self.check(&name.0)?;
        let before = before.map(|time| FirePosition { time, schedule: None });
        let page = self.0.app.schedules.fires(Some(name), before.as_ref(), limit.into()).await?;
        let link = page.next.map(|next| {
            let (limit, before) = (limit.to_string(), next.to_string());
            let path = format!("/admin/queue/schedules/{}/fires", encoded(name));
            next_link(&path, &[("limit", Some(&limit)), ("before", Some(&before))])
        });
        Ok(FiresResponse::Ok(json(&page.rows)?, link))
    }

    /// Fire a schedule now
    ///
    /// In addition to its regular times. `result` is the number of jobs.
    #[oai(path = "/admin/queue/schedules/:name/fire", method = "post", operation_id = "fire_schedule")]
    async fn fire(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        /// The name of the schedule.
        name: Path<String>,
        body: Body<Reason>,
    ) -> Result<ActedResponse, Failure<Firing>> {
        self.0.act(&caller).await?;
        let (actor, Reason { reason }) = (actor.0, body.read()).all_valid()?;
        let order = actor.order(&caller, &reason)?;
        let name = self.check(&name.0)?;
        let jobs = self.0.app.schedules.fire(name, &order).await?.ok_or_else(|| not_found(UNKNOWN))?;
        Ok(ActedResponse::new(order, "fire", name, &jobs.to_string())?)
    }

    /// Skip the next fire of a schedule
    ///
    /// The fire after it is as usual. What is due or was missed fires first. `result` is the nominal time that will not
    /// fire. 409 if an operator skips the next fire already, or if there is no next time.
    #[oai(path = "/admin/queue/schedules/:name/skip-next", method = "post", operation_id = "skip_next_fire")]
    async fn skip_next(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        /// The name of the schedule.
        name: Path<String>,
        body: Body<Reason>,
    ) -> Result<ActedResponse, Failure<Skipping>> {
        self.0.act(&caller).await?;
        let (actor, Reason { reason }) = (actor.0, body.read()).all_valid()?;
        let order = actor.order(&caller, &reason)?;
        let name = self.check(&name.0)?;
        match self.0.app.schedules.skip_next(name, &order).await? {
            Skip::Skipped(time) => {
                let time = time.format(&Rfc3339).unwrap_or_default();
                Ok(ActedResponse::new(order, "skip", name, &time)?)
            }
            Skip::AlreadySkipped(_) => Err(conflict("An operator skips the next fire already.").into()),
            Skip::NoTime => Err(conflict("The schedule has no next time.").into()),
            Skip::NotFound => Err(not_found(UNKNOWN).into()),
        }
    }
}
