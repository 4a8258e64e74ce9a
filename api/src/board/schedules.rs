//! The schedules: next fires, past ones with their outcomes, fire now and skip the next fire.

use askama::Template;
use poem::Response;
use queue::schedule::{FirePosition, Fired, Overview, Skip};

use super::{
    form::invalid,
    format,
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::{Visit, after_action, conflict, not_found},
};
use crate::problem::Problem;

const PATH: &str = "/board/schedules";
/// The fires of one page.
const PAGE: u32 = 50;

/// The page.
#[derive(Template)]
#[template(path = "schedules.html")]
struct SchedulesPage {
    chrome: Chrome,
    schedules: Part<Vec<Overview>>,
}

/// The page of the fires of one schedule.
#[derive(Template)]
#[template(path = "fires.html")]
struct FiresPage {
    chrome: Chrome,
    name: String,
    fires: Part<Vec<Fired>>,
    older: Option<String>,
    newest: Option<String>,
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

/// Shows fires of one schedule, newest first.
///
/// # Errors
/// 404 for an unknown schedule; 422 when `before` is no time.
pub(super) async fn fires(state: &State, visit: &Visit, name: &str) -> Result<Response, Problem> {
    let schedules = &state.app.schedules;
    if !schedules.names().contains(&name) {
        return Err(not_found("schedule", name));
    }
    let before = visit.query.get("before").map(str::parse::<FirePosition>).transpose();
    let before = before.map_err(|must| invalid("before", &must))?;
    let page = load("fires", schedules.fires(Some(name), before.as_ref(), PAGE)).await;
    let next = page.as_ref().ok().and_then(|page| page.next.as_ref());
    let older = next.map(|next| format::link(&fires_path(name), &[("before", Some(&next.to_string()))]));
    let fires = page.map(|page| page.rows);
    let command = [("", Some(name)), ("--before", visit.query.get("before"))];
    let chrome = visit.chrome(&format!("Fires of {name}"), PATH, format::command("schedules fires", &command));
    let newest = before.map(|_| fires_path(name));
    page::render(&FiresPage { chrome, name: name.to_owned(), fires, older, newest })
}

/// The page of the fires of a schedule.
fn fires_path(name: &str) -> String {
    format!("{PATH}/{}", format::encoded(name))
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
