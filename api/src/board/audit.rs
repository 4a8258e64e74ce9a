//! What operators did.

use askama::Template;
use poem::Response;
use queue::operator::audit::Action;

use super::{
    format,
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::Visit,
};
use crate::problem::Problem;

const PATH: &str = "/board/audit";
/// The actions of one page.
const PAGE: u32 = 50;

/// The page.
#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    chrome: Chrome,
    target: Option<String>,
    actions: Part<Vec<Action>>,
    older: Option<String>,
    newest: Option<String>,
}

/// Shows actions, newest first: all, or those on one target.
///
/// # Errors
/// 422 when `before` is no number.
pub(super) async fn list(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let target = visit.query.text("target");
    let before = visit.query.number("before", i64::MAX, 0, i64::MAX)?;
    let found = load("actions", state.operator().list_actions(target.as_deref(), Some(before), PAGE)).await;
    let link = |before: Option<&str>| format::link(PATH, &[("target", target.as_deref()), ("before", before)]);
    let next = found.as_ref().ok().and_then(|page| page.next);
    let page = AuditPage {
        chrome: visit.chrome("Audit", PATH, format::command("audit", &[("--target", target.as_deref())])),
        older: next.map(|next| link(Some(&next.to_string()))),
        newest: visit.query.get("before").map(|_| link(None)),
        actions: found.map(|page| page.rows),
        target,
    };
    page::render(&page)
}
