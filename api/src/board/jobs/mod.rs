//! The list of jobs.

pub(super) mod cancel;
mod filter;
pub(super) mod job;

use askama::Template;
use poem::Response;
use queue::{
    filter::Filter,
    status::{JobPage, State as JobState},
};

use super::{
    format,
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::Visit,
};
use crate::problem::Problem;

const PATH: &str = "/board/jobs";
/// The jobs of one page.
const PAGE: u32 = 50;

/// A tab: its name, its link, and whether it is the current one.
struct Tab {
    name: &'static str,
    link: String,
    is_current: bool,
}

/// The page.
#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    chrome: Chrome,
    tabs: Vec<Tab>,
    filter: Filter,
    page: Part<JobPage>,
    /// The next page, or the next part of the jobs that are searched.
    older: Option<String>,
    /// The first page, if this is a later one.
    newest: Option<String>,
}

/// Shows a page of jobs, newest first.
///
/// # Errors
/// 422 for an unknown state, a wrong age or a wrong number of runs.
pub(super) async fn list(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let filter = filter::read(&visit.query)?;
    let found = load("jobs", state.operator().list(&filter, PAGE)).await;
    let link = |state: Option<JobState>, before: Option<String>| {
        filter::link(PATH, &Filter { state, before, ..filter.clone() })
    };
    // Live jobs first: they are what an operator looks for.
    let states = [JobState::Running, JobState::Waiting, JobState::Dead, JobState::Cancelled, JobState::Done];
    let tabs = states.into_iter().map(Some).chain([None]).map(|state| Tab {
        name: state.map_or("all", JobState::as_str),
        link: link(state, None),
        is_current: state == filter.state,
    });
    let older = found.as_ref().ok().and_then(|page| page.next.clone());
    let page = JobsPage {
        chrome: visit.chrome("Jobs", PATH, filter::command("jobs list", &filter, &[])),
        tabs: tabs.collect(),
        older: older.map(|next| link(filter.state, Some(next))),
        newest: filter.before.as_ref().map(|_| link(filter.state, None)),
        page: found,
        filter,
    };
    page::render(&page)
}

/// Whether the listed jobs can be cancelled together: the live ones of one queue.
fn can_cancel(filter: &Filter) -> bool {
    filter.queue.is_some() && matches!(filter.state, Some(JobState::Waiting | JobState::Running))
}

/// Whether the list has conditions other than the state.
fn is_filtered(filter: &Filter) -> bool {
    filter.parameters().iter().any(|(name, _)| *name != "state")
}
