//! The workers, and what each holds.

use std::collections::BTreeSet;

use askama::Template;
use poem::Response;
use queue::{
    operator::{audit::Action, workers::WorkerInfo},
    status::JobStatus,
};

use super::{
    format,
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::{Visit, after_action, not_found},
};
use crate::problem::Problem;

const PATH: &str = "/board/workers";
/// The jobs and the actions that a page shows.
const JOBS: u32 = 100;
const ACTIONS: u32 = 20;

/// The page of all workers.
#[derive(Template)]
#[template(path = "workers.html")]
struct WorkersPage {
    chrome: Chrome,
    workers: Part<Vec<WorkerInfo>>,
    /// The releases of live workers, if they differ.
    versions: Vec<String>,
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

/// Shows all workers.
///
/// # Errors
/// [`Problem`] 500 when the template fails.
pub(super) async fn list(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let workers = load("workers", state.operator().workers()).await;
    let live = workers.iter().flatten().filter(|worker| worker.live);
    let versions: BTreeSet<_> = live.filter_map(|worker| Some(worker.report.as_ref()?.version.clone())).collect();
    let versions = if versions.len() > 1 { versions.into_iter().collect() } else { Vec::new() };
    page::render(&WorkersPage {
        chrome: visit.chrome("Workers", PATH, format::command("workers", &[])),
        workers,
        versions,
    })
}

/// Shows one worker and the jobs that it holds.
///
/// # Errors
/// 404 for an unknown one.
pub(super) async fn show(state: &State, visit: &Visit, id: &str) -> Result<Response, Problem> {
    let operator = state.operator();
    // The quickest first: there are two sessions.
    let (actions, workers, jobs) = tokio::join!(
        load("actions", operator.actions(Some(id), None, ACTIONS)),
        load("workers", operator.workers()),
        load("held jobs", operator.held_by(id, JOBS)),
    );
    let worker = match workers.map(|workers| workers.into_iter().find(|worker| worker.id == id)) {
        Ok(None) => return Err(not_found("worker", id)),
        Ok(Some(worker)) => Ok(worker),
        Err(missing) => Err(missing),
    };
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

/// The list of all jobs that a worker runs.
fn held_link(id: &str) -> String {
    format::link("/board/jobs", &[("state", Some("running")), ("worker", Some(id))])
}
