//! Search by id, and the timeline of a transaction.

use askama::Template;
use jobs::{lookup::Found, transactions::timeline::Timeline};
use poem::Response;

use super::{
    format,
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::{Visit, not_found, redirect},
};
use crate::problem::Problem;

/// The page of a search.
#[derive(Template)]
#[template(path = "find.html")]
struct FindPage {
    chrome: Chrome,
    found: Part<Vec<Found>>,
}

/// The page of a transaction.
#[derive(Template)]
#[template(path = "timeline.html")]
struct TimelinePage {
    chrome: Chrome,
    id: String,
    timeline: Part<Timeline>,
}

/// Searches for an id. A single result is shown at once.
///
/// # Errors
/// [`Problem`] 500 when the template fails.
pub(super) async fn show(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let text = visit.query.get("q").unwrap_or_default();
    let found = if text.is_empty() { Ok(Vec::new()) } else { load("search", state.app.find(text)).await };
    if let Ok([only]) = found.as_deref()
        && let Some(link) = found_link(only)
    {
        return Ok(redirect(&link));
    }
    let chrome = visit.chrome("Find", "/board/find", format::command("find", &[("", Some(text))]));
    page::render(&FindPage { chrome, found })
}

/// Shows what happened to a transaction.
///
/// # Errors
/// 404 for an unknown transaction.
pub(super) async fn timeline(state: &State, visit: &Visit, id: &str) -> Result<Response, Problem> {
    let timeline = load("timeline", state.app.timeline(id)).await.transpose();
    let timeline = timeline.ok_or_else(|| not_found("transaction", id))?;
    let command = format::command("transaction", &[("", Some(id))]);
    let chrome = visit.chrome(&format!("Transaction {id}"), "/board/find", command);
    page::render(&TimelinePage { chrome, id: id.to_owned(), timeline })
}

/// The page of a result; `None` if the board has none for its kind.
fn found_link(found: &Found) -> Option<String> {
    let folder = match found.kind {
        "job" => "jobs",
        "transaction" => "t",
        "replay" => "replays",
        _ => return None,
    };
    Some(format!("/board/{folder}/{}", format::encoded(&found.id)))
}
