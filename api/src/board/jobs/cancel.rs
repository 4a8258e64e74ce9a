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
    /// The number of jobs that the button cancels.
    takes: i64,
    /// Their ids as JSON.
    ids: String,
    reason: String,
    back: String,
}

/// Shows what would be cancelled.
///
/// # Errors
/// 422 for a wrong field, without a queue or without a reason.
pub(in crate::board) async fn preview(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let filter = read(&visit.query)?;
    let reason = visit.query.text("reason").ok_or_else(|| invalid("reason", "must not be empty"))?;
    let selected = load("selection", state.operator().select_live(&filter, None)).await;
    let back = filter::link(super::PATH, &filter);
    let takes =
        selected.as_ref().map_or(&[][..], |selected| selected.ids.get(..LIMIT as usize).unwrap_or(&selected.ids));
    let (ids, takes) = (serde_json::to_string(takes)?, takes.len());
    let limit = takes.to_string();
    let more = [("--limit", Some(&*limit)), ("--reason", Some(&*reason))];
    let command = filter::command("jobs cancel", &filter, &more) + " --dry-run";
    let chrome = visit.chrome("Preview", super::PATH, command).without_refresh();
    let takes = i64::try_from(takes).unwrap_or(i64::MAX);
    page::render(&CancelPage { chrome, filter, selected, takes, ids, reason, back })
}

/// Cancels the jobs of the preview, as far as the filter still selects them.
///
/// # Errors
/// 422 for a wrong field.
pub(in crate::board) async fn cancel(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let order = visit.order()?;
    let filter = read(&visit.form)?;
    let ids: Option<Vec<String>> = visit.form.get("ids").and_then(|ids| serde_json::from_str(ids).ok());
    // PostgreSQL stores no NUL.
    let ids = ids.filter(|ids| ids.len() <= LIMIT as usize && ids.iter().all(|id| !id.contains('\0')));
    let ids = ids.ok_or_else(|| invalid("ids", "must be those of the preview"))?;
    let selected = state.operator().select_live(&filter, Some(&ids)).await?;
    let cancelled = state.operator().cancel_selected(&filter, &selected.ids, &order).await?;
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
