//! Replays of many dead letters and their progress.

use askama::Template;
use jobs::app::App;
use poem::Response;
use queue::{
    Operator, Page,
    operator::{
        audit::Action,
        replays::{Replay, ReplayChange},
    },
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    form::invalid,
    format,
    live::{Render, renderer},
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::{Visit, after_action, conflict, not_found},
};
use crate::problem::Problem;

const PATH: &str = "/board/replays";
/// The replays of one page, and the newest actions that a page shows.
const PAGE: u32 = 50;

/// The list of replays.
#[derive(Template)]
#[template(path = "replays.html")]
struct ReplaysPage {
    chrome: Chrome,
    state: ReplaysState,
}

/// What changes on the page.
#[derive(Template)]
#[template(path = "replays_state.html")]
struct ReplaysState {
    page: Part<Page<Replay, Uuid>>,
    /// Whether this is the first page, which is updated by events.
    is_first: bool,
    at: OffsetDateTime,
}

impl ReplaysState {
    /// Reads the page of the replays before this one.
    async fn read(operator: &Operator, before: Option<Uuid>) -> Self {
        let page = load("replays", operator.replays(before, PAGE)).await;
        Self { page, is_first: before.is_none(), at: OffsetDateTime::now_utc() }
    }
}

/// The page of one replay.
#[derive(Template)]
#[template(path = "replay.html")]
struct ReplayPage {
    chrome: Chrome,
    id: Uuid,
    replay: Part<Replay>,
    actions: Part<Vec<Action>>,
}

/// The renderer of what changes on the first page, for those who watch it.
pub(super) fn snapshots(app: &App) -> Render {
    let operator = app.operator.clone();
    renderer(move || {
        let operator = operator.clone();
        async move { ReplaysState::read(&operator, None).await }
    })
}

/// Shows a page of replays, newest first.
///
/// # Errors
/// 422 when `before` is no id of a replay.
pub(super) async fn list(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let before = visit.query.get("before").map(Uuid::parse_str).transpose();
    let before = before.map_err(|_| invalid("before", "must be the id of a replay"))?;
    let state = ReplaysState::read(state.operator(), before).await;
    let command = format::command("replays", &[("--before", visit.query.get("before"))]);
    page::render(&ReplaysPage { chrome: visit.chrome("Replays", PATH, command), state })
}

fn older_link(before: &Uuid) -> String {
    format::link(PATH, &[("before", Some(&before.to_string()))])
}

/// Shows one replay.
///
/// # Errors
/// 404 for an unknown one.
pub(super) async fn show(state: &State, visit: &Visit, text: &str) -> Result<Response, Problem> {
    let id = parse(text)?;
    let (operator, target) = (state.operator(), id.to_string());
    let (replay, actions) =
        tokio::join!(load("replay", operator.find_replay(id)), load("actions", operator.actions(&target, PAGE)));
    let replay = replay.transpose().ok_or_else(|| not_found("replay", text))?;
    let chrome = visit.chrome("Replay", PATH, format::command("replays show", &[("", Some(&target))]));
    page::render(&ReplayPage { chrome, id, replay, actions })
}

/// Pauses, resumes or stops a replay.
///
/// # Errors
/// 422 for a missing reason; 409 if its state does not allow the change.
pub(super) async fn change(state: &State, visit: &Visit, text: &str, change: &str) -> Result<Response, Problem> {
    let id = parse(text)?;
    let change = match change {
        "pause" => ReplayChange::Pause,
        "resume" => ReplayChange::Resume,
        "stop" => ReplayChange::Stop,
        _ => return Err(not_found("action", change)),
    };
    if !state.operator().change_replay(id, change, &visit.order()?).await? {
        return Err(conflict("The replay does not exist, or its state does not allow this any more."));
    }
    Ok(after_action(&format!("{PATH}/{id}"), "changed", None))
}

fn parse(text: &str) -> Result<Uuid, Problem> {
    Uuid::parse_str(text).map_err(|_| not_found("replay", text))
}
