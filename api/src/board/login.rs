//! Login and logout.

use askama::Template;
use poem::{Request, Response, http::StatusCode};
use time::OffsetDateTime;

use super::{form::Form, page, session::Role, state::State, visit::redirect};
use crate::{
    auth::Key,
    problem::Problem,
    rate_limit::{Policy, client_network},
};

/// Login attempts, per address. A successful one does not count.
pub(super) const POLICY: Policy = Policy { name: "board-login", quota: 10, window: std::time::Duration::from_secs(60) };
/// The most characters of a name.
const MAX_NAME: usize = 100;
const ROOT: &str = "/board";

/// The page of the login.
#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    error: Option<&'static str>,
    name: String,
    next: String,
    /// The operator who is logged in already.
    current: Option<String>,
}

/// Shows the form.
///
/// # Errors
/// [`Problem`] 500 when the template fails.
pub(super) fn show(state: &State, request: &Request) -> Result<Response, Problem> {
    let query = Form::parse(request.uri().query().unwrap_or_default().as_bytes());
    let session = state.sessions.of(request, OffsetDateTime::now_utc());
    page::render(&LoginPage {
        error: None,
        name: String::new(),
        next: local(query.get("next")).to_owned(),
        current: session.map(|session| session.name),
    })
}

/// Checks the key, and starts a session.
///
/// # Errors
/// 429 after too many attempts from one address.
pub(super) async fn submit(state: &State, request: &Request, form: &Form) -> Result<Response, Problem> {
    let address = client_network(request);
    state.logins.acquire(address).await?;
    let name = form.get("name").unwrap_or_default();
    let next = local(form.get("next"));
    let refused = |status, error| {
        let page = LoginPage { error: Some(error), name: name.to_owned(), next: next.to_owned(), current: None };
        page::render_as(status, &page)
    };
    let role = match state.authenticator.identify(form.get("key").unwrap_or_default().as_bytes()) {
        Some(Key::Admin) => Role::Operator,
        Some(Key::Viewer) => Role::Viewer,
        _ => {
            return refused(
                StatusCode::FORBIDDEN,
                "key: this key opens no board. It must be ADMIN_API_KEY or VIEWER_API_KEY.",
            );
        }
    };
    if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        return refused(
            StatusCode::UNPROCESSABLE_ENTITY,
            "name: must have 1 to 100 characters. The audit records it with each of your actions.",
        );
    }
    state.logins.refund(address).await;
    tracing::info!(operator = name, role = ?role, "logged in to the board");
    let mut response = redirect(next);
    set_cookie(&mut response, &state.sessions.start(role, name, OffsetDateTime::now_utc()));
    Ok(response)
}

/// Ends the session in this browser.
pub(super) fn logout(state: &State) -> Response {
    let mut response = redirect("/board/login");
    set_cookie(&mut response, &state.sessions.end());
    response
}

fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(cookie) = cookie.parse() {
        response.headers_mut().insert("set-cookie", cookie);
    }
}

/// A path of the board to go to after the login; `/board` instead of any other address.
fn local(next: Option<&str>) -> &str {
    let is_local = |next: &&str| {
        let rest = next.strip_prefix(ROOT);
        let is_board = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        is_board
            && !next.starts_with("/board/login")
            && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    next.filter(is_local).unwrap_or(ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_the_board_only() {
        for next in ["/board", "/board/jobs/01J?x=%20", "/board?a=b"] {
            assert_eq!(local(Some(next)), next);
        }
        for next in [
            "",
            "//evil.example",
            "https://evil.example",
            "/boarding",
            "/board\\..",
            "/board/login?next=x",
            "/board/\r\nx: y",
            "/docs",
        ] {
            assert_eq!(local(Some(next)), ROOT, "{next:?}");
        }
        assert_eq!(local(None), ROOT);
    }
}
