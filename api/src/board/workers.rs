//! The workers, and what each holds.

use std::collections::BTreeSet;

use askama::Template;
use jobs::app::App;
use poem::Response;
use queue::{
    Operator, Page,
    operator::{audit::Action, workers::WorkerInfo},
    status::JobStatus,
};
use time::OffsetDateTime;

use super::{
    format,
    live::{Render, renderer},
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::{Visit, after_action, not_found},
};
use crate::problem::Problem;

const PATH: &str = "/board/workers";
/// The workers of one page.
const PAGE: u32 = 50;
/// The jobs and the actions that a page shows.
const JOBS: u32 = 100;
const ACTIONS: u32 = 20;

/// The list of workers.
#[derive(Template)]
#[template(path = "workers.html")]
struct WorkersPage {
    chrome: Chrome,
    state: WorkersState,
}

/// What changes on the page.
#[derive(Template)]
#[template(path = "workers_state.html")]
struct WorkersState {
    page: Part<Page<WorkerInfo, String>>,
    /// The releases of all live workers, if they differ.
    versions: Part<Vec<String>>,
    /// Whether this is the first page, which is updated by events.
    is_first: bool,
    at: OffsetDateTime,
}

impl WorkersState {
    /// Reads the page of the workers after this one.
    async fn read(operator: &Operator, after: Option<&str>) -> Self {
        let page = load("workers", operator.list_workers(after, PAGE)).await;
        let versions = match &page {
            Ok(Page { rows, next: None }) if after.is_none() => Ok(versions(rows)),
            Ok(_) => load("releases", operator.workers()).await.map(|all| versions(&all)),
            // The page says so once.
            Err(_) => Ok(Vec::new()),
        };
        Self { page, versions, is_first: after.is_none(), at: OffsetDateTime::now_utc() }
    }
}

/// The page of one worker.
#[derive(Template)]
#[template(path = "worker.html")]
struct WorkerPage {
    chrome: Chrome,
    id: String,
    worker: Part<WorkerInfo>,
    jobs: Part<Vec<JobStatus>>,
    actions: Part<Vec<Action>>,
}

/// The renderer of what changes on the first page, for those who watch it.
pub(super) fn snapshots(app: &App) -> Render {
    let operator = app.operator.clone();
    renderer(move || {
        let operator = operator.clone();
        async move { WorkersState::read(&operator, None).await }
    })
}

/// Shows a page of workers.
///
/// # Errors
/// [`Problem`] 500 when the template fails.
pub(super) async fn list(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let after = visit.query.get("after");
    let state = WorkersState::read(state.operator(), after).await;
    let chrome = visit.chrome("Workers", PATH, format::command("workers", &[("--after", after)]));
    page::render(&WorkersPage { chrome, state })
}

/// The releases of live workers, if they differ.
fn versions(workers: &[WorkerInfo]) -> Vec<String> {
    let live = workers.iter().filter(|worker| worker.live);
    let versions: BTreeSet<_> = live.filter_map(|worker| Some(worker.report.as_ref()?.version.clone())).collect();
    if versions.len() > 1 { versions.into_iter().collect() } else { Vec::new() }
}

/// Shows one worker and the jobs that it holds.
///
/// # Errors
/// 404 for an unknown one.
pub(super) async fn show(state: &State, visit: &Visit, id: &str) -> Result<Response, Problem> {
    let operator = state.operator();
    // The quickest first: there are two sessions.
    let (actions, worker, jobs) = tokio::join!(
        load("actions", operator.actions(id, ACTIONS)),
        load("worker", operator.find_worker(id)),
        load("held jobs", operator.held_by(id, JOBS)),
    );
    let worker = worker.transpose().ok_or_else(|| not_found("worker", id))?;
    let chrome = visit.chrome(&format!("Worker {id}"), PATH, format::command("workers show", &[("", Some(id))]));
    page::render(&WorkerPage { chrome, id: id.to_owned(), worker, jobs, actions })
}

/// Asks a worker to stop.
///
/// # Errors
/// 422 for a missing reason; 404 for an unknown worker.
pub(super) async fn drain(state: &State, visit: &Visit, id: &str) -> Result<Response, Problem> {
    if !state.operator().drain_worker(id, &visit.order()?).await? {
        return Err(not_found("worker", id));
    }
    Ok(after_action(&format!("{PATH}/{}", format::encoded(id)), "draining", None))
}

/// Whether the worker stops, or is asked to.
fn is_draining(worker: &WorkerInfo) -> bool {
    worker.drain_requested || worker.report.as_ref().is_some_and(|report| report.draining)
}

/// The slots of all queues of a worker, and how many are in use.
fn slots(worker: &WorkerInfo) -> String {
    let Some(report) = &worker.report else { return "–".into() };
    let (running, slots) =
        report.queues.values().fold((0, 0), |(running, slots), queue| (running + queue.running, slots + queue.slots));
    format!("{running} of {slots}")
}

/// The page after this worker.
fn next_link(last: &str) -> String {
    format::link(PATH, &[("after", Some(last))])
}

/// The list of all jobs that a worker runs.
fn held_link(id: &str) -> String {
    format::link("/board/jobs", &[("state", Some("running")), ("worker", Some(id))])
}
