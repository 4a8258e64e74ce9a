//! A request of a logged-in operator.

use poem::{Response, http::StatusCode};
use queue::operator::audit::{Order, Via};
use time::OffsetDateTime;

use super::{
    form::{Form, invalid},
    format,
    page::{self, Chrome},
    session::{Role, Session},
};
use crate::problem::Problem;

/// A request of a logged-in operator.
pub(super) struct Visit {
    pub session: Session,
    /// The parameters of the URL.
    pub query: Form,
    /// The parameters of a POST.
    pub form: Form,
}

impl Visit {
    /// Whether the operator may act.
    pub(super) fn can_act(&self) -> bool {
        self.session.role == Role::Operator
    }

    /// What surrounds a page: its title, its tab in the navigation, and the command that shows the same.
    pub(super) fn chrome(&self, title: &str, tab: &'static str, command: String) -> Chrome {
        Chrome {
            title: title.to_owned(),
            tab,
            name: self.session.name.clone(),
            can_act: self.can_act(),
            csrf: self.session.csrf.clone(),
            command,
            notice: self.query.get("notice").and_then(|notice| page::notice(notice, self.query.get("n"))),
            query: self.query.text("q").unwrap_or_default(),
            refreshes: true,
            at: OffsetDateTime::now_utc(),
        }
    }

    /// The order of an action, with the reason of the form.
    ///
    /// # Errors
    /// 422 when the reason is missing or too long.
    pub(super) fn order(&self) -> Result<Order, Problem> {
        let reason = self.form.get("reason").unwrap_or_default();
        Order::new(&self.session.name, Via::Board, reason).map_err(|error| {
            let (field, must) = error.split_once(' ').unwrap_or(("reason", &error));
            invalid(field, must)
        })
    }
}

/// Goes to a page after an action, with a notice of its result.
pub(super) fn after_action(path: &str, notice: &str, count: Option<u64>) -> Response {
    let count = count.map(|count| count.to_string());
    redirect(&format::link(path, &[("notice", Some(notice)), ("n", count.as_deref())]))
}

/// 303 to a page of the board.
pub(super) fn redirect(to: &str) -> Response {
    Response::builder().status(StatusCode::SEE_OTHER).header("location", to).finish()
}

/// 404 for something that does not exist.
pub(super) fn not_found(what: &str, name: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("There is no {what} {name:?}."))
}

/// 409 for an action that the present state does not allow.
pub(super) fn conflict(text: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, text.into())
}
