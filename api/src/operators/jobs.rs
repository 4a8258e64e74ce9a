//! The endpoints of single jobs: list, show, explain, cancel and replay.

use poem_openapi::{OpenApi, param::Path};
use queue::{
    filter::Filter,
    status::{Cancelled, Replayed, State},
};
use time::format_description::well_known::Rfc3339;

use super::{
    JobsApi,
    actor::Actor,
    check_name, conflict, not_found,
    wire::{
        ActedResponse,
        filter::{AgeParam, Cancelling, Runs},
        input::{JobReplay, Reason, TextParam},
        jobs::{CancelledJobs, CancelledView, Job, JobDetails, JobView, Why},
        json,
    },
};
use crate::{
    auth::{Admin, Viewer},
    link::next_link,
    page::Limit,
    problem::{Failure, errors},
    tags::Tag,
    validation::{AllValid, Body, Flag, OneOf, Query},
    wire::{Json, responses},
};

const PATH: &str = "/admin/queue/jobs";
/// The detail of a 404.
const UNKNOWN: &str = "Unknown job";
/// The recorded reason of opening a payload without one.
const OPENED: &str = "the payload was opened";

responses! {
    /// One page, newest first.
    JobsResponse = 200 Json<Vec<Job>> {
        /// The next page as `<…>; rel="next"`; absent when all jobs were searched.
        "Link": Option<String>,
        /// Finished jobs, and waiting jobs beyond the first 10,000 of a queue, were searched down to this id; absent if all
        /// jobs were searched. `Link` continues there.
        "Searched-To": Option<String>,
        /// When the job of that id was enqueued, in the form of RFC 3339.
        "Searched-Back-To": Option<String>,
    };

    /// The job.
    JobResponse = 200 Json<JobDetails>;

    /// The checks in the order in which they decide.
    WhyResponse = 200 Json<Why>;

    /// The jobs are cancelled, or with `dry_run` only counted.
    CancelledResponse = 200 Json<CancelledJobs>;
}

errors! {
    Listing: [401, 403, 422, 429, 503];
    Opening: [401, 403, 404, 422, 429, 503];
    Finding: [401, 403, 404, 429, 503];
    Changing: [400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503];
    Selecting: [400, 401, 403, 404, 408, 413, 415, 422, 429, 503];
}

#[expect(clippy::too_many_arguments, reason = "each query parameter is an argument, which `openapi.json` describes")]
#[OpenApi(tag = "Tag::Operators")]
impl JobsApi {
    /// List jobs
    ///
    /// Newest first; every given condition must hold. Running, dead and cancelled jobs have indexes, so all of them are
    /// searched. Finished jobs, and waiting jobs beyond the first 10,000 of a queue, are searched among the newest 100,000
    /// jobs, down to `Searched-To`; `Link` continues there. Jobs before that id that a page already has may come again on a
    /// later page.
    #[oai(path = "/admin/queue/jobs", method = "get", operation_id = "list_jobs")]
    async fn list(
        &self,
        caller: Viewer,
        /// List only jobs of this queue.
        queue: Query<Option<TextParam<500>>>,
        /// List only jobs in this state.
        state: Query<Option<OneOf<State>>>,
        /// List only jobs whose last error contains this text.
        error: Query<Option<TextParam<500>>>,
        /// List only jobs whose last error is of this group, as `/admin/queue/dead` names it.
        group: Query<Option<TextParam<500>>>,
        /// List only jobs that were enqueued longer ago, such as `30m`, `2h` or `1d`.
        older_than: Query<Option<AgeParam>>,
        /// List only jobs that this worker runs or ran last.
        worker: Query<Option<TextParam<500>>>,
        /// List only jobs with at least so many runs.
        attempts: Query<Option<Runs>>,
        /// List only the jobs with this unique key.
        key: Query<Option<TextParam<1100>>>,
        /// List only jobs before this id.
        before: Query<Option<TextParam<500>>>,
        /// The largest number of jobs on the page.
        limit: Query<Limit>,
    ) -> Result<JobsResponse, Failure<Listing>> {
        let operator = self.0.read(&caller).await?;
        let (queue, state, error, group, older_than, worker, attempts, key, before, limit) =
            (queue.0, state.0, error.0, group.0, older_than.0, worker.0, attempts.0, key.0, before.0, limit.0)
                .all_valid()?;
        let filter = Filter { queue, state, error, group, older_than, worker, attempts, key, before };
        let found = operator.list(&filter, limit.into()).await?;
        let link = found.next.as_deref().map(|next| {
            let (conditions, limit) = (filter.parameters(), limit.to_string());
            let mut parameters: Vec<_> = conditions.iter().map(|(name, value)| (*name, Some(&**value))).collect();
            parameters.extend([("limit", Some(&*limit)), ("before", Some(next))]);
            next_link(PATH, &parameters)
        });
        let back_to = found.searched_back_to.and_then(|at| at.format(&Rfc3339).ok());
        Ok(JobsResponse::Ok(json(&found.jobs)?, link, found.searched_to, back_to))
    }

    /// Get a job
    ///
    /// With its errors and in one sentence why it is not running. The payload is shown only with `payload=true`, which
    /// is recorded as the action `open` and refused to viewers.
    #[oai(path = "/admin/queue/jobs/:id", method = "get", operation_id = "get_job")]
    async fn get(
        &self,
        caller: Viewer,
        #[oai(name = "X-Actor")] actor: Actor,
        /// The id of the job.
        id: Path<String>,
        /// Whether to show the payload.
        payload: Query<Flag>,
        /// Why the payload is opened; recorded.
        reason: Query<Option<TextParam<500>>>,
    ) -> Result<JobResponse, Failure<Opening>> {
        let operator = self.0.read(&caller).await?;
        let opens = payload.0;
        let admin = if matches!(opens, Ok(true)) { Some(caller.require_admin()?) } else { None };
        // The actor is checked even if nothing is opened: the document says what is valid.
        let (_, reason, actor) = (opens, reason.0, actor.0).all_valid()?;
        let id = check_name(&id.0, UNKNOWN)?;
        let job = match admin {
            Some(admin) => {
                let order = actor.order(&admin, reason.as_deref().unwrap_or(OPENED))?;
                operator.open(id, &order).await?.map(JobView::opened)
            }
            None => operator.show(id).await?.map(JobView::masked),
        };
        Ok(JobResponse::Ok(json(&job.ok_or_else(|| not_found(UNKNOWN))?)?))
    }

    /// Explain why a job is not running
    ///
    /// Ordered checks, each with its result and, if it fails, a command that corrects it.
    #[oai(path = "/admin/queue/jobs/:id/why", method = "get", operation_id = "explain_job")]
    async fn why(
        &self,
        caller: Viewer,
        /// The id of the job.
        id: Path<String>,
    ) -> Result<WhyResponse, Failure<Finding>> {
        let operator = self.0.read(&caller).await?;
        let why = operator.why(check_name(&id.0, UNKNOWN)?).await?.ok_or_else(|| not_found(UNKNOWN))?;
        Ok(WhyResponse::Ok(json(&why)?))
    }

    /// Cancel a job
    ///
    /// A waiting job is cancelled at once: `result` is `cancelled`. A running job is stopped by its worker: `requested`.
    /// What the job would change when it is given up is changed: the transaction is `FAILED`. 409 if it had ended.
    #[oai(path = "/admin/queue/jobs/:id/cancel", method = "post", operation_id = "cancel_job")]
    async fn cancel(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        /// The id of the job.
        id: Path<String>,
        body: Body<Reason>,
    ) -> Result<ActedResponse, Failure<Changing>> {
        let operator = self.0.act(&caller).await?;
        let (actor, Reason { reason }) = (actor.0, body.read()).all_valid()?;
        let order = actor.order(&caller, &reason)?;
        let id = check_name(&id.0, UNKNOWN)?;
        let result = match operator.cancel(id, &order).await? {
            Cancelled::AtOnce => "cancelled",
            Cancelled::Requested => "requested",
            Cancelled::Ended => return Err(conflict("The job has ended already.").into()),
            Cancelled::NotFound => return Err(not_found(UNKNOWN).into()),
        };
        Ok(ActedResponse::new(order, "cancel", id, result)?)
    }

    /// Cancel the jobs that a filter selects
    ///
    /// The waiting jobs of a queue, or its running ones; every given condition must hold. At most 10,000 are selected, among
    /// the first 100,000. Call it with `dry_run` first, then with the `ids` of that response: it cancels exactly these jobs,
    /// apart from those that have ended since. 404 if no job is selected. After a 503, some may be cancelled already; each is
    /// recorded.
    #[oai(path = "/admin/queue/cancel", method = "post", operation_id = "cancel_jobs")]
    async fn cancel_selected(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        body: Body<Cancelling>,
    ) -> Result<CancelledResponse, Failure<Selecting>> {
        let operator = self.0.act(&caller).await?;
        let (actor, body) = (actor.0, body.read()).all_valid()?;
        let Cancelling { filter, ids, limit, reason, dry_run } = body;
        let order = actor.order(&caller, &reason)?;
        let selected = operator.select_live(&filter, ids.as_deref()).await?;
        if selected.count == 0 {
            return Err(not_found("No waiting or running job is selected.").into());
        }
        let mut result = CancelledView::dry_run(selected, limit);
        if !dry_run {
            let count = operator.cancel_selected(&filter, &result.ids, &order).await?;
            result = CancelledView { dry_run: false, count, ..result };
        }
        Ok(CancelledResponse::Ok(json(&result)?))
    }

    /// Replay a job
    ///
    /// A dead or cancelled job waits again, due now and with all its attempts. What it changed when it was given up is
    /// restored: a `FAILED` transaction is `PROCESSING` again. 409 if it is neither dead nor cancelled, if another job with
    /// its key waits or runs, or if it was already replayed twice or more and `include_replayed` is not set.
    #[oai(path = "/admin/queue/jobs/:id/replay", method = "post", operation_id = "replay_job")]
    async fn replay(
        &self,
        caller: Admin,
        #[oai(name = "X-Actor")] actor: Actor,
        /// The id of the job.
        id: Path<String>,
        body: Body<JobReplay>,
    ) -> Result<ActedResponse, Failure<Changing>> {
        let operator = self.0.act(&caller).await?;
        let (actor, JobReplay { reason, include_replayed }) = (actor.0, body.read()).all_valid()?;
        let order = actor.order(&caller, &reason)?;
        let id = check_name(&id.0, UNKNOWN)?;
        let replayed = if include_replayed {
            operator.replay_again(id, &order).await?
        } else {
            operator.replay(id, &order).await?
        };
        match replayed {
            Replayed::Replayed => Ok(ActedResponse::new(order, "replay", id, "replayed")?),
            Replayed::NotDead => Err(conflict("The job is neither dead nor cancelled.").into()),
            Replayed::KeyTaken => Err(conflict("Another job with the same key waits or runs.").into()),
            Replayed::ReplayedBefore => {
                let detail = "The job was already replayed twice or more. To replay it again, set include_replayed.";
                Err(conflict(detail).into())
            }
            Replayed::NotFound => Err(not_found(UNKNOWN).into()),
        }
    }
}
