//! The page of a job: its details, why it does not run, its errors, and what operators can do with it.

use askama::Template;
use poem::Response;
use queue::{
    operator::{audit::Action, replays::REPLAYS_WITHOUT_ASKING, why::Why},
    status::{Cancelled, JobDetails, JobStatus, Replayed, State as JobState},
};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::board::{
    format,
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::{Visit, after_action, conflict, not_found},
};
use crate::problem::Problem;

/// The newest actions that the page shows.
const ACTIONS: u32 = 20;

/// An error of a run, as the queue records it.
#[derive(Deserialize)]
struct RunError {
    at: Option<String>,
    run: Option<i64>,
    worker: Option<String>,
    error: Option<String>,
}

impl RunError {
    /// When the run ended; `None` if another program wrote something else.
    fn time(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(self.at.as_deref()?, &Rfc3339).ok()
    }
}

/// The page.
#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    chrome: Chrome,
    id: String,
    details: Part<JobDetails>,
    errors: Vec<RunError>,
    why: Part<Option<Why>>,
    actions: Part<Vec<Action>>,
    /// The payload, once an operator has opened it.
    payload: Option<String>,
}

impl JobPage {
    fn can_cancel(job: &JobDetails) -> bool {
        matches!(job.job.state, JobState::Waiting | JobState::Running)
    }

    fn can_replay(job: &JobDetails) -> bool {
        matches!(job.job.state, JobState::Dead | JobState::Cancelled)
    }

    /// Whether a replay needs a confirmation.
    fn must_confirm(job: &JobDetails) -> bool {
        job.replays >= REPLAYS_WITHOUT_ASKING
    }
}

/// Shows the page.
///
/// # Errors
/// 404 for an unknown job.
pub(crate) async fn show(state: &State, visit: &Visit, id: &str) -> Result<Response, Problem> {
    page::render(&load_page(state, visit, id).await?)
}

async fn load_page(state: &State, visit: &Visit, id: &str) -> Result<JobPage, Problem> {
    let operator = state.operator();
    let (details, actions) =
        tokio::join!(load("job", operator.show(id)), load("actions", operator.actions(id, ACTIONS)));
    let details = details.transpose().ok_or_else(|| not_found("job", id))?;
    let why = match &details {
        Ok(details) => load("why", operator.why_of(details)).await,
        Err(missing) => Err(*missing),
    };
    let errors = details.as_ref().ok().map(|details| &details.errors);
    let errors = errors.and_then(|errors| Vec::<RunError>::deserialize(errors).ok());
    Ok(JobPage {
        chrome: visit.chrome(&format!("Job {id}"), "/board/jobs", format::command("why", &[("", Some(id))])),
        id: id.to_owned(),
        // The newest error first.
        errors: errors.unwrap_or_default().into_iter().rev().collect(),
        details,
        why,
        actions,
        payload: None,
    })
}

/// Shows the page with the payload, and records that it was opened.
///
/// # Errors
/// 422 for a missing reason; 404 for an unknown job.
pub(crate) async fn open_payload(state: &State, visit: &Visit, id: &str) -> Result<Response, Problem> {
    let order = visit.order()?;
    let Some(details) = state.operator().open(id, &order).await? else { return Err(not_found("job", id)) };
    let mut page = load_page(state, visit, id).await?;
    page.payload = Some(serde_json::to_string_pretty(&details.payload)?);
    page.chrome = page.chrome.without_refresh();
    page::render(&page)
}

/// Cancels the job.
///
/// # Errors
/// 422 for a missing reason; 404 for an unknown job; 409 if it has ended.
pub(crate) async fn cancel(state: &State, visit: &Visit, id: &str) -> Result<Response, Problem> {
    match state.operator().cancel(id, &visit.order()?).await? {
        Cancelled::AtOnce => Ok(after_action(&path(id), "cancelled", None)),
        Cancelled::Requested => Ok(after_action(&path(id), "cancelling", None)),
        Cancelled::Ended => Err(conflict("The job has already ended.")),
        Cancelled::NotFound => Err(not_found("job", id)),
    }
}

/// Replays the job.
///
/// # Errors
/// 422 for a missing reason; 404 for an unknown job; 409 if it cannot be replayed now, or was replayed twice or more and
/// that is not confirmed.
pub(crate) async fn replay(state: &State, visit: &Visit, id: &str) -> Result<Response, Problem> {
    let (operator, order) = (state.operator(), visit.order()?);
    let replayed = match visit.form.get("include_replayed") {
        Some(_) => operator.replay_again(id, &order).await?,
        None => operator.replay(id, &order).await?,
    };
    match replayed {
        Replayed::Replayed => Ok(after_action(&path(id), "replayed", None)),
        Replayed::NotDead => Err(conflict("The job is neither a dead letter nor cancelled.")),
        Replayed::KeyTaken => Err(conflict("Another job with its unique key waits or runs.")),
        Replayed::ReplayedBefore => {
            Err(conflict("The job was already replayed twice or more, and you have not confirmed that."))
        }
        Replayed::NotFound => Err(not_found("job", id)),
    }
}

fn is_running(why: &Why) -> bool {
    why.job.state == JobState::Running
}

/// Whether the job will not run, as it should be. The checks would then look like faults.
fn has_ended_well(why: &Why) -> bool {
    matches!(why.job.state, JobState::Done | JobState::Cancelled)
}

/// The style of the verdict: a job that has ended well is neither good nor bad news.
fn verdict_class(why: &Why) -> &'static str {
    match why.checks.iter().all(|check| check.ok) {
        _ if has_ended_well(why) => "",
        true => "good",
        false => "bad",
    }
}

/// The jobs in this state with the same error.
fn group_link(job: &JobStatus) -> String {
    let parameters =
        [("state", Some(job.state.as_str())), ("queue", Some(&*job.queue)), ("group", job.error_group.as_deref())];
    format::link("/board/jobs", &parameters)
}

fn path(id: &str) -> String {
    format!("/board/jobs/{}", format::encoded(id))
}
