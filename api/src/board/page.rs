//! What all pages have in common: the frame around them, notices, and the page of an error.

use askama::Template;
use poem::{
    Response,
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use serde::Deserialize;
use time::OffsetDateTime;

use super::format;
use crate::problem::Problem;

/// The media type of pages.
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// What surrounds a page.
pub(super) struct Chrome {
    pub title: String,
    /// The path of the current entry of the navigation.
    pub tab: &'static str,
    /// The operator's name.
    pub name: String,
    /// Whether the operator may act; viewers see no forms.
    pub can_act: bool,
    pub csrf: String,
    /// The command that shows the same.
    pub command: String,
    /// The result of the action before this page.
    pub notice: Option<String>,
    /// The text in the search field.
    pub query: String,
    /// Whether the script reloads the page from time to time.
    pub refreshes: bool,
    pub at: OffsetDateTime,
}

impl Chrome {
    /// The entries of the navigation: path and name.
    pub(super) const TABS: [(&'static str, &'static str); 10] = [
        ("/board", "Now"),
        ("/board/jobs", "Jobs"),
        ("/board/dead", "Dead letters"),
        ("/board/replays", "Replays"),
        ("/board/workers", "Workers"),
        ("/board/schedules", "Schedules"),
        ("/board/callbacks", "Callbacks"),
        ("/board/scale", "Scale"),
        ("/board/audit", "Audit"),
        ("/board/database", "Database"),
    ];

    /// Whether a path is the current entry.
    pub(super) fn is(path: &str, tab: &str) -> bool {
        path == tab
    }

    /// A page that stays as it is.
    #[must_use]
    pub(super) fn without_refresh(self) -> Self {
        Self { refreshes: false, ..self }
    }
}

/// Renders a page.
///
/// # Errors
/// 500 when the template fails, which only a fault in it causes.
pub(super) fn render(page: &impl Template) -> Result<Response, Problem> {
    render_as(StatusCode::OK, page)
}

/// Renders a page with this status.
///
/// # Errors
/// [`Problem`] 500 when the template fails.
pub(super) fn render_as(status: StatusCode, page: &impl Template) -> Result<Response, Problem> {
    let text = page.render().map_err(|error| Problem::internal(format!("a page cannot be rendered: {error}")))?;
    let mut response = Response::from(text);
    response.set_status(status);
    response.headers_mut().insert(header::CONTENT_TYPE, HTML);
    Ok(response)
}

/// The text of a notice. The URL names the notice and not its text, so that no link shows a text of its own.
pub(super) fn notice(name: &str, count: Option<&str>) -> Option<String> {
    let count = || count.and_then(|count| count.parse::<i64>().ok()).map_or_else(String::new, format::number);
    Some(match name {
        "paused" => "The queue is paused. Running jobs go on.".into(),
        "resumed" => "The queue is resumed.".into(),
        "cancelled" => "The job is cancelled.".into(),
        "cancelled-many" => format!("{} jobs are cancelled, or will be by their workers.", count()),
        "cancelling" => "The job is running. Its worker aborts it at its next await.".into(),
        "replayed" => "The job waits again, due now and with all its attempts.".into(),
        "started" => "The replay has started.".into(),
        "changed" => "The replay is changed.".into(),
        "draining" => "The worker stops claiming with its next heartbeat, and ends when its jobs have ended.".into(),
        "fired" => format!("The schedule has fired: {} jobs.", count()),
        "skipped" => "The next fire is skipped.".into(),
        "enabled" => "The destination is enabled. Replay its dead letters to send what it has missed.".into(),
        "discarded" => format!("{} dead letters are discarded.", count()),
        _ => return None,
    })
}

/// The page of an error.
#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    title: String,
    detail: String,
    correlation_id: String,
}

/// The members of a problem that its page shows.
#[derive(Deserialize, Default)]
struct ProblemText {
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: serde_json::Value,
}

/// Turns a problem into a page with the same status and headers.
pub(super) async fn of_problem(mut response: Response) -> Response {
    /// These describe the body of the problem.
    const OF_THE_BODY: [HeaderName; 2] = [header::CONTENT_TYPE, header::CONTENT_LENGTH];
    let body = response.take_body().into_vec().await.unwrap_or_default();
    let problem: ProblemText = serde_json::from_slice(&body).unwrap_or_default();
    let title = Some(problem.title).filter(|title| !title.is_empty());
    let page = ErrorPage {
        title: title.or_else(|| response.status().canonical_reason().map(str::to_owned)).unwrap_or_default(),
        detail: problem.detail.as_str().map_or_else(|| problem.detail.to_string(), str::to_owned),
        correlation_id: response.header("x-correlation-id").unwrap_or_default().to_owned(),
    };
    let status = response.status();
    let Ok(mut html) = render_as(status, &page) else { return response };
    for (name, value) in response.headers() {
        if !OF_THE_BODY.contains(name) {
            html.headers_mut().append(name, value.clone());
        }
    }
    html
}
