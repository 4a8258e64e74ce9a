//! Dead letters: groups by error, and the replay or the end of a selection, each with a preview.

use askama::Template;
use poem::Response;
use queue::operator::{
    groups::{ErrorGroup, MAX_COUNTED},
    replays::{MAX_RATE, Pace, Selected, Selection, StartedReplay},
};

use super::{
    form::{Form, invalid},
    format,
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::{Visit, after_action, conflict},
};
use crate::problem::Problem;

const PATH: &str = "/board/dead";

/// The page of all groups.
#[derive(Template)]
#[template(path = "dead.html")]
struct DeadPage {
    chrome: Chrome,
    queue: Option<String>,
    groups: Part<Vec<ErrorGroup>>,
}

/// The page of a selection, with the forms of its actions.
#[derive(Template)]
#[template(path = "selection.html")]
struct SelectionPage {
    chrome: Chrome,
    selection: Selection,
    selected: Part<Selected>,
}

/// The page that shows what an action will do, before it does it.
#[derive(Template)]
#[template(path = "preview.html")]
struct PreviewPage {
    chrome: Chrome,
    plan: Plan,
    selected: Part<Selected>,
    /// The reason that the operator has given.
    reason: String,
    /// The jobs that the action takes.
    takes: i64,
    back: String,
}

/// What to do with a selection.
struct Plan {
    selection: Selection,
    /// How to replay it; `None` to discard it.
    pace: Option<Pace>,
    limit: u32,
}

impl Plan {
    fn read(form: &Form) -> Result<Self, Problem> {
        let selection = read_selection(form)?;
        let limit = form.number("limit", 500, 1, 100_000)?;
        let pace = match form.get("action") {
            Some("replay") => Some(Pace {
                rate: form.number("rate", 20.0, 0.01, MAX_RATE)?,
                limit,
                canary: form.number("canary", 10, 0, 10_000)?,
                stop_if_dead: form.number("stop_if_dead", 20.0, 0.0, 100.0)? / 100.0,
                include_replayed: form.get("include_replayed").is_some(),
            }),
            Some("discard") => None,
            _ => return Err(invalid("action", "must be replay or discard")),
        };
        Ok(Self { selection, pace, limit })
    }

    fn command(&self, reason: &str) -> String {
        let (selection, limit) = (options(&self.selection), self.limit.to_string());
        let end = [("--limit", Some(limit.as_str())), ("--reason", Some(reason))];
        let Some(pace) = self.pace else {
            return format::command("dead discard", &[&selection[..], &end].concat());
        };
        let (rate, canary) = (format!("{}/s", pace.rate), pace.canary.to_string());
        let stop = format!("{:.0}%", pace.stop_if_dead * 100.0);
        let how = [("--rate", Some(&*rate)), ("--canary", Some(&*canary)), ("--stop-if-dead", Some(&*stop))];
        let again = if pace.include_replayed { " --include-replayed" } else { "" };
        format::command("dead replay", &[&selection[..], &how, &end].concat()) + again
    }
}

/// A selection as options of a command.
fn options(Selection { queue, group, error, .. }: &Selection) -> [(&str, Option<&str>); 3] {
    [("--queue", Some(queue.as_str())), ("--group", group.as_deref()), ("--error", error.as_deref())]
}

/// Shows the groups of all queues, or of one.
///
/// # Errors
/// [`Problem`] 500 when the template fails.
pub(super) async fn groups(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let queue = visit.query.text("queue");
    let groups = load("groups", state.operator().dead_groups(queue.as_deref())).await;
    let command = format::command("dead", &[("--queue", queue.as_deref())]);
    page::render(&DeadPage { chrome: visit.chrome("Dead letters", PATH, command), queue, groups })
}

/// Shows a selection: its number, samples, and the forms.
///
/// # Errors
/// 422 without a queue.
pub(super) async fn selection(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let selection = read_selection(&visit.query)?;
    let selected = load("selection", state.operator().select_dead(&selection)).await;
    let command = format::command("dead replay", &options(&selection)) + " --dry-run";
    let chrome = visit.chrome("Dead letters", PATH, command);
    page::render(&SelectionPage { chrome, selection, selected })
}

/// Shows what an action would do.
///
/// # Errors
/// 422 for a wrong field.
pub(super) async fn preview(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let plan = Plan::read(&visit.query)?;
    let reason = visit.query.text("reason").ok_or_else(|| invalid("reason", "must not be empty"))?;
    let selected = load("selection", state.operator().select_dead(&plan.selection)).await;
    let takes = selected.as_ref().map_or(0, |selected| selected.count).min(i64::from(plan.limit));
    let Selection { queue, group, error, .. } = &plan.selection;
    let selection = [("queue", Some(queue.as_str())), ("group", group.as_deref()), ("error", error.as_deref())];
    let back = format::link("/board/dead/selection", &selection);
    let chrome = visit.chrome("Preview", PATH, plan.command(&reason) + " --dry-run").without_refresh();
    page::render(&PreviewPage { chrome, plan, selected, reason, takes, back })
}

/// Starts a replay.
///
/// # Errors
/// 422 for a wrong field; 409 if jobs were replayed twice or more and that is not confirmed.
pub(super) async fn replay(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let order = visit.order()?;
    let plan = Plan::read(&visit.form)?;
    let pace = plan.pace.ok_or_else(|| invalid("action", "must be replay"))?;
    let replay = match state.operator().start_replay(&plan.selection, pace, &order).await? {
        StartedReplay::Started(replay) => replay,
        StartedReplay::ReplayedBefore(count) => {
            let detail =
                format!("{count} of these jobs were already replayed twice or more, and you have not confirmed that.");
            return Err(conflict(detail));
        }
    };
    Ok(after_action(&format!("/board/replays/{}", replay.id), "started", None))
}

/// Discards a selection for good.
///
/// # Errors
/// 422 for a wrong field.
pub(super) async fn discard(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let order = visit.order()?;
    let plan = Plan::read(&visit.form)?;
    let discarded = state.operator().discard_dead(&plan.selection, plan.limit, &order).await?;
    Ok(after_action(PATH, "discarded", Some(discarded)))
}

fn read_selection(form: &Form) -> Result<Selection, Problem> {
    let queue = form.text("queue").ok_or_else(|| invalid("queue", "must be the name of a queue"))?;
    let died_before = form.get("died_before").map(Selection::parse_time).transpose();
    let died_before = died_before.map_err(|must| invalid("died_before", &must))?;
    Ok(Selection { queue, group: form.text("group"), error: form.text("error"), died_before })
}

/// The shortest time that a replay takes at its rate.
// Counts of jobs are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn least_seconds(jobs: i64, pace: &Pace) -> f64 {
    jobs as f64 / pace.rate
}

/// The page of a group.
fn group_link(group: &ErrorGroup) -> String {
    format::link("/board/dead/selection", &[("queue", Some(&group.queue)), ("group", Some(&group.group))])
}
