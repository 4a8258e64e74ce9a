//! The destinations of callbacks: what is wrong with them, and enabling one again.

use askama::Template;
use jobs::transactions::callbacks::model::{DestinationStatus, Enabled, MAX_WAITING, label};
use poem::Response;

use super::{
    format,
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::{Visit, after_action, conflict, not_found},
};
use crate::problem::Problem;

const PATH: &str = "/board/callbacks";

/// The page.
#[derive(Template)]
#[template(path = "callbacks.html")]
struct CallbacksPage {
    chrome: Chrome,
    destinations: Part<Vec<DestinationStatus>>,
}

/// Shows all destinations.
///
/// # Errors
/// [`Problem`] 500 when the template fails.
pub(super) async fn list(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let destinations = load("callbacks", state.app.transactions.callbacks().list()).await;
    let chrome = visit.chrome("Callbacks", PATH, format::command("callbacks", &[]));
    page::render(&CallbacksPage { chrome, destinations })
}

/// Enables a destination.
///
/// # Errors
/// 422 for a missing reason; 404 for an unknown destination; 409 if it is not disabled.
pub(super) async fn enable(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let order = visit.order()?;
    let destination = visit.form.get("destination").unwrap_or_default();
    match state.app.transactions.callbacks().enable(destination, &order).await? {
        Enabled::Enabled => Ok(after_action(PATH, "enabled", None)),
        Enabled::NotDisabled => Err(conflict(format!("{} is not disabled.", label(destination)))),
        Enabled::Unknown => Err(not_found("destination", destination)),
    }
}

/// The state of a destination in a word, which is also its class in the stylesheet.
fn state_of(destination: &DestinationStatus) -> &'static str {
    match (destination.disabled_at, destination.failing_since) {
        (Some(_), _) => "stopped",
        (None, Some(_)) => "waiting",
        (None, None) => "done",
    }
}

/// The dead letters of a disabled destination.
fn dead_link(destination: &DestinationStatus) -> String {
    let error = format!("callbacks to {} are disabled", label(&destination.name));
    format::link("/board/dead/selection", &[("queue", Some("send_callback")), ("error", Some(&error))])
}
