//! The schedules: next fires, past ones with their outcomes, fire now and skip the next fire.

use askama::Template;
use poem::Response;
use queue::schedule::{Fired, Overview, Skip};

use super::{
    format,
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::{Visit, after_action, conflict, not_found},
};
use crate::problem::Problem;

const PATH: &str = "/board/schedules";

/// The page.
#[derive(Template)]
#[template(path = "schedules.html")]
struct SchedulesPage {
    chrome: Chrome,
    schedules: Part<Vec<Overview>>,
}

/// Shows all schedules.
///
/// # Errors
/// As [`page::render`].
pub(super) async fn list(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let schedules = load("schedules", state.app.schedules.overview()).await;
    let chrome = visit.chrome("Schedules", PATH, format::command("schedules", &[]));
    page::render(&SchedulesPage { chrome, schedules })
}

/// Fires a schedule now.
///
/// # Errors
/// 422 for a missing reason; 404 for an unknown schedule.
pub(super) async fn fire(state: &State, visit: &Visit, name: &str) -> Result<Response, Problem> {
    let order = visit.order()?;
    let jobs = state.app.schedules.fire(name, &order).await?.ok_or_else(|| not_found("schedule", name))?;
    Ok(after_action(PATH, "fired", u64::try_from(jobs).ok()))
}

/// Skips the next fire.
///
/// # Errors
/// 422 for a missing reason; 404 for an unknown schedule; 409 if the next fire is skipped already.
pub(super) async fn skip_next(state: &State, visit: &Visit, name: &str) -> Result<Response, Problem> {
    let order = visit.order()?;
    match state.app.schedules.skip_next(name, &order).await? {
        Skip::Skipped(_) => Ok(after_action(PATH, "skipped", None)),
        Skip::AlreadySkipped(next) => {
            let by = next.skipped_by.unwrap_or_default();
            Err(conflict(format!("{by} skips the next fire at {} already.", format::rfc3339(next.time))))
        }
        Skip::NoTime => Err(conflict(format!("The schedule {name} has no next time."))),
        Skip::NotFound => Err(not_found("schedule", name)),
    }
}

/// The class of a fire's outcome in the stylesheet: that of a job's state.
fn outcome_class(fire: &Fired) -> &'static str {
    match fire.outcome.as_str() {
        "retried" => "waiting",
        "no jobs" | "not known" => "cancelled",
        state => state,
    }
}

/// The delay from the nominal time, in words; empty for a fire that was skipped before its time.
fn lateness(fire: &Fired) -> String {
    let late = (fire.fired_at - fire.fire_time).as_seconds_f64();
    if late < 0.0 { String::new() } else { format::seconds(late) }
}

/// How a fire came about, in words.
fn kind(fire: &Fired) -> String {
    fire.kind.replace('_', " ")
}
