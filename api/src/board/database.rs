//! The examination of the database.

use askama::Template;
use poem::Response;
use runtime::doctor::{CheckReport, Report, Severity};

use super::{
    format,
    page::{self, Chrome},
    state::State,
    visit::Visit,
};
use crate::problem::Problem;

const PATH: &str = "/board/database";

/// The page.
#[derive(Template)]
#[template(path = "database.html")]
struct DatabasePage {
    chrome: Chrome,
    report: Report,
}

/// Shows the page. It opens sessions of its own, so it is not refreshed by itself.
///
/// # Errors
/// As [`page::render`].
pub(super) async fn show(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let report = state.app.examine_database().await;
    let chrome = visit.chrome("Database", PATH, format::command("doctor", &[])).without_refresh();
    page::render(&DatabasePage { chrome, report })
}

/// The verdict in words; `None` if all is well.
fn verdict(report: &Report) -> Option<String> {
    report.worst()?;
    let unknown = report.checks.iter().filter(|check| check.not_known.is_some()).count();
    let counts = [
        (report.count(Severity::Error), "errors"),
        (report.count(Severity::Warning), "warnings"),
        (unknown, "checks without a result"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    Some(counts.collect::<Vec<_>>().join(", "))
}

/// The name of a check's state, which the stylesheet colours.
fn state_of(check: &CheckReport) -> &'static str {
    match check.findings.iter().map(|finding| finding.severity).max() {
        _ if check.not_known.is_some() => "not known",
        Some(Severity::Error) => "error",
        Some(Severity::Warning) => "warning",
        _ => "good",
    }
}

/// The class of a check's state.
fn class_of(check: &CheckReport) -> &'static str {
    match state_of(check) {
        "error" => "dead",
        "good" => "done",
        _ => "waiting",
    }
}
