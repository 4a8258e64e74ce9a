//! The list of jobs.

pub(super) mod job;

use askama::Template;
use poem::Response;
use queue::status::{Filter, JobPage, State as JobState};

use super::{
    form::invalid,
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
    /// The next page.
    older: Option<String>,
    /// The first page, if this is a later one.
    newest: Option<String>,
}

/// Shows a page of jobs, newest first.
///
/// # Errors
/// 422 for an unknown state.
pub(super) async fn list(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let query = &visit.query;
    let job_state = query.get("state").map(parse_state).transpose()?;
    let filter = Filter {
        queue: query.text("queue"),
        state: job_state,
        error: query.text("error"),
        before: query.text("before"),
    };
    let found = load("jobs", state.operator().list(&filter, PAGE)).await;
    let link = |state: Option<JobState>, before: Option<&str>| {
        let state = state.map(JobState::as_str);
        let (queue, error) = (filter.queue.as_deref(), filter.error.as_deref());
        format::link(PATH, &[("state", state), ("queue", queue), ("error", error), ("before", before)])
    };
    let states = [None, Some(JobState::Running), Some(JobState::Waiting), Some(JobState::Dead)];
    let states = states.into_iter().chain([Some(JobState::Cancelled), Some(JobState::Done)]);
    let tabs = states.map(|state| Tab {
        name: state.map_or("all", JobState::as_str),
        link: link(state, None),
        is_current: state == job_state,
    });
    let options = [
        ("--state", job_state.map(JobState::as_str)),
        ("--queue", filter.queue.as_deref()),
        ("--error", filter.error.as_deref()),
    ];
    let jobs = found.as_ref().map(|page| page.jobs.as_slice()).unwrap_or_default();
    let last = jobs.last().filter(|_| jobs.len() == PAGE as usize);
    let page = JobsPage {
        chrome: visit.chrome("Jobs", PATH, format::command("jobs list", &options)),
        tabs: tabs.collect(),
        older: last.map(|job| link(job_state, Some(&job.id))),
        newest: filter.before.as_ref().map(|_| link(job_state, None)),
        page: found,
        filter,
    };
    page::render(&page)
}

fn parse_state(text: &str) -> Result<JobState, Problem> {
    let state = JobState::ALL.into_iter().find(|state| state.as_str() == text);
    state.ok_or_else(|| invalid("state", "must be waiting, running, done, dead or cancelled"))
}
