//! The first page: what is wrong, and all queues.

use std::sync::Arc;

use askama::Template;
use jobs::{app::App, overview};
use poem::Response;
use queue::{
    operator::overview::{Overview, OverviewCache, QueueOverview},
    status::COUNTED,
};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::{
    chart, format,
    live::{Render, renderer},
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::Visit,
};
use crate::problem::Problem;

pub(super) const PATH: &str = "/board";
/// Queues beyond these have no chart, so that the page stays small.
const CHARTS: usize = 40;

/// The page.
#[derive(Template)]
#[template(path = "now.html")]
struct NowPage {
    chrome: Chrome,
    state: NowState,
}

/// What changes on the page.
#[derive(Template)]
#[template(path = "now_state.html")]
struct NowState {
    overview: Part<Overview>,
    at: OffsetDateTime,
}

/// The renderer of what changes on the page, for those who watch it. It keeps what changes slowly.
pub(super) fn snapshots(app: &App) -> Render {
    let (app, cache) = (app.clone(), Arc::new(Mutex::new(OverviewCache::default())));
    renderer(move || {
        let (app, cache) = (app.clone(), Arc::clone(&cache));
        async move {
            let overview = load("overview", overview::watch(&app, &mut *cache.lock().await)).await;
            NowState { overview, at: OffsetDateTime::now_utc() }
        }
    })
}

/// Shows the page.
///
/// # Errors
/// [`Problem`] 500 when the template fails.
pub(super) async fn show(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let overview = load("overview", overview::read(&state.app)).await;
    let chrome = visit.chrome("Now", PATH, format::command("status", &[]));
    let state = NowState { overview, at: chrome.at };
    page::render(&NowPage { chrome, state })
}

/// When no due job is left, in words.
pub(super) fn drained(queue: &QueueOverview) -> String {
    if queue.status.due == 0 {
        return "nothing is due".into();
    }
    match (queue.drained_in_seconds, queue.growing_by_per_second) {
        (Some(seconds), _) => format!("in {}", format::seconds(seconds)),
        (None, Some(growth)) if growth < 0.01 => "never at this rate".into(),
        (None, Some(growth)) => format!("never at this rate: +{}", format::rate(growth)),
        (None, None) => "not known".into(),
    }
}

/// The oldest due job, in words.
pub(super) fn oldest_due(queue: &QueueOverview) -> String {
    match queue.status.late {
        Some(late) if late >= 0.0 => format!("for {}", format::seconds(late)),
        Some(late) => format!("in {}", format::seconds(-late)),
        None => "–".into(),
    }
}

/// How long 99 of 100 runs had waited at most, in words.
pub(super) fn wait_p99(queue: &QueueOverview) -> String {
    match queue.wait_p99_seconds {
        Some(wait) => format!("≤ {}", format::seconds(wait)),
        None if queue.out_per_second_15_min > 0.0 => "> 5 min".into(),
        None => "–".into(),
    }
}

/// The number of workers, in words.
pub(super) fn workers_needed(queue: &QueueOverview) -> String {
    match (queue.workers_needed, queue.workers_to_drain_in_10_min) {
        (Some(now), Some(drain)) if drain > now => format!("{now} ({drain} to drain in 10 min)"),
        (Some(now), _) => now.to_string(),
        (None, _) => "–".into(),
    }
}
