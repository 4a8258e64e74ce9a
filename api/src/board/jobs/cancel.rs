//! The cancellation of all waiting or running jobs that a filter selects, after a preview.

use askama::Template;
use poem::Response;
use queue::{filter::Filter, operator::jobs::LiveJobs, status::State as JobState};

use super::filter;
use crate::{
    board::{
        form::{Form, invalid},
        format,
        page::{self, Chrome},
        part::{Part, load},
        state::State,
        visit::{Visit, after_action},
    },
    problem::Problem,
};

/// A request cancels at most so many jobs, so that it ends soon.
const LIMIT: u32 = 1000;

/// The page that shows what will be cancelled.
#[derive(Template)]
#[template(path = "cancel.html")]
struct CancelPage {
    chrome: Chrome,
    filter: Filter,
    selected: Part<LiveJobs>,
    /// The jobs that the button cancels.
    takes: i64,
    reason: String,
    back: String,
}

/// Shows what would be cancelled.
///
/// # Errors
/// 422 for a wrong field, without a queue or without a reason.
pub(in crate::board) async fn preview(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let mut filter = read(&visit.query)?;
    let reason = visit.query.text("reason").ok_or_else(|| invalid("reason", "must not be empty"))?;
    let selected = load("selection", state.operator().select_live(&filter)).await;
    let back = filter::link(super::PATH, &filter);
    let takes = selected.as_ref().map_or(0, |selected| selected.count.min(LIMIT as usize));
    let limit = takes.to_string();
    let more = [("--limit", Some(&*limit)), ("--reason", Some(&*reason))];
    let command = filter::command("jobs cancel", &filter, &more) + " --dry-run";
    filter.before = selected.as_ref().ok().map(|selected| selected.before.clone());
    let chrome = visit.chrome("Preview", super::PATH, command).without_refresh();
    let takes = i64::try_from(takes).unwrap_or(i64::MAX);
    page::render(&CancelPage { chrome, filter, selected, takes, reason, back })
}

/// Cancels the selected jobs.
///
/// # Errors
/// 422 for a wrong field.
pub(in crate::board) async fn cancel(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let order = visit.order()?;
    let filter = read(&visit.form)?;
    let limit = visit.form.number("limit", LIMIT, 1, LIMIT)?;
    let cancelled = state.operator().cancel_selected(&filter, limit, &order).await?;
    let back = filter::link(super::PATH, &Filter { before: None, ..filter });
    Ok(after_action(&back, "cancelled-many", Some(cancelled)))
}

/// Reads a filter of live jobs of one queue.
fn read(form: &Form) -> Result<Filter, Problem> {
    let filter = filter::read(form)?;
    if filter.queue.is_none() {
        return Err(invalid("queue", "must be the name of a queue"));
    }
    match filter.state {
        Some(JobState::Waiting | JobState::Running) => Ok(filter),
        _ => Err(invalid("state", "must be waiting or running")),
    }
}
