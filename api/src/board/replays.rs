//! Replays of many dead letters and their progress.

use askama::Template;
use poem::Response;
use queue::operator::{
    audit::Action,
    replays::{Replay, ReplayChange},
};
use uuid::Uuid;

use super::{
    format,
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::{Visit, after_action, conflict, not_found},
};
use crate::problem::Problem;

const PATH: &str = "/board/replays";
/// The newest replays and actions that a page shows.
const NEWEST: u32 = 50;

/// The page of all replays.
#[derive(Template)]
#[template(path = "replays.html")]
struct ReplaysPage {
    chrome: Chrome,
    replays: Part<Vec<Replay>>,
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

/// Shows the newest replays.
///
/// # Errors
/// [`Problem`] 500 when the template fails.
pub(super) async fn list(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let replays = load("replays", state.operator().replays(NEWEST)).await;
    page::render(&ReplaysPage { chrome: visit.chrome("Replays", PATH, format::command("replays", &[])), replays })
}

/// Shows one replay.
///
/// # Errors
/// 404 for an unknown one.
pub(super) async fn show(state: &State, visit: &Visit, text: &str) -> Result<Response, Problem> {
    let id = parse(text)?;
    let (operator, target) = (state.operator(), id.to_string());
    let (replay, actions) = tokio::join!(
        load("replay", operator.find_replay(id)),
        load("actions", operator.actions(Some(&target), None, NEWEST)),
    );
    let replay = match replay {
        Ok(None) => return Err(not_found("replay", text)),
        Ok(Some(replay)) => Ok(replay),
        Err(missing) => Err(missing),
    };
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
