//! The page of a queue: its state, its chart, pause and resume, and what operators did.

use askama::Template;
use poem::Response;
use queue::{
    operator::{
        audit::Action,
        overview::QueueOverview,
        pauses::{PauseEnd, Pausing},
    },
    status::COUNTED,
};

use super::{
    chart,
    form::invalid,
    format, now,
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::{Visit, after_action, conflict, not_found},
};
use crate::problem::Problem;

/// The number of actions that the page shows, the newest ones.
const ACTIONS: u32 = 20;

/// The page.
#[derive(Template)]
#[template(path = "queue.html")]
struct QueuePage {
    chrome: Chrome,
    name: String,
    queue: Part<Option<QueueOverview>>,
    actions: Part<Vec<Action>>,
}

/// Shows the page of a queue. An unknown queue has a page as well: it can be one without jobs and workers.
///
/// # Errors
/// [`Problem`] 500 when the template fails.
pub(super) async fn show(state: &State, visit: &Visit, name: &str) -> Result<Response, Problem> {
    let operator = state.operator();
    let (queue, actions) =
        tokio::join!(load("queue", operator.queue_overview(name)), load("actions", operator.actions(name, ACTIONS)));
    let chrome = visit.chrome(name, "/board", format::command("queues show", &[("", Some(name))]));
    page::render(&QueuePage { chrome, name: name.to_owned(), queue, actions })
}

/// Pauses a queue.
///
/// # Errors
/// 422 for a wrong field; 404 for an unknown queue.
pub(super) async fn pause(state: &State, visit: &Visit, name: &str) -> Result<Response, Problem> {
    let order = visit.order()?;
    let end = visit.form.get("until").map(str::parse).transpose();
    let end: Option<PauseEnd> = end.map_err(|must: String| invalid("until", &must))?;
    match state.operator().pause(name, end, &order).await? {
        Pausing::Paused => Ok(after_action(&path(name), "paused", None)),
        Pausing::UnknownQueue => Err(not_found("queue", name)),
        Pausing::EndIsPast => Err(invalid("until", PauseEnd::MUST_FOLLOW)),
    }
}

/// Resumes a queue.
///
/// # Errors
/// 422 for a missing reason; 409 if it was not paused.
pub(super) async fn resume(state: &State, visit: &Visit, name: &str) -> Result<Response, Problem> {
    let order = visit.order()?;
    if !state.operator().resume(name, &order).await? {
        return Err(conflict(format!("The queue {name} was not paused.")));
    }
    Ok(after_action(&path(name), "resumed", None))
}

/// Whether the queue is paused. The page then has the form that resumes it, and otherwise the form that pauses it.
fn is_paused(queue: &Part<Option<QueueOverview>>) -> bool {
    queue.as_ref().ok().and_then(Option::as_ref).is_some_and(|queue| queue.status.paused_at.is_some())
}

fn path(name: &str) -> String {
    format!("/board/queues/{}", format::encoded(name))
}
