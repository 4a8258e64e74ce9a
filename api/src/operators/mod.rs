//! The operators' endpoints: what the queues do, and every action of an operator.
//!
//! `ADMIN_API_KEY` and tokens of admins may do everything here; `VIEWER_API_KEY` only reads.

mod dead_letters;
mod history;
mod jobs;
mod queues;
mod replays;
mod wire;
mod workers;

use std::borrow::Cow;

use poem::{
    Request,
    http::{HeaderName, StatusCode},
};
use queue::{
    Operator,
    operator::audit::{Order, Via},
};

pub(crate) use self::{
    dead_letters::DeadLettersApi, history::HistoryApi, jobs::JobsApi, queues::QueuesApi, replays::ReplaysApi,
    workers::WorkersApi,
};
use crate::{
    auth::{Admin, Caller, Key, Viewer},
    context::Context,
    problem::Problem,
    rate_limit::Limit,
    validation::FieldError,
};

/// The header with the name of the operator.
const ACTOR: HeaderName = HeaderName::from_static("x-actor");
/// The most characters of that name.
const MAX_ACTOR: usize = 100;
/// No name or id is longer; a longer one in a path is unknown.
const MAX_NAME: usize = 500;

/// What the operators' endpoints share: the service, and one rate limit.
#[derive(Clone)]
struct Access {
    /// For actions.
    operator: Operator,
    /// For reading, with sessions of its own.
    views: Operator,
    limit: Limit,
}

impl Access {
    fn new(Context { app, views, limits, .. }: &Context<'_>) -> Self {
        Self { operator: app.operator.clone(), views: views.operator.clone(), limit: limits.operators.clone() }
    }

    /// Counts a request that reads.
    ///
    /// # Errors
    /// 429 after too many.
    async fn read(&self, Viewer(caller): &Viewer) -> Result<&Operator, Problem> {
        self.limit.acquire(caller).await?;
        Ok(&self.views)
    }

    /// Counts a request that acts.
    ///
    /// # Errors
    /// 429 after too many.
    async fn act(&self, Admin(caller): &Admin) -> Result<&Operator, Problem> {
        self.limit.acquire(caller).await?;
        Ok(&self.operator)
    }
}

/// Builds the order of an action: who acts, and why.
///
/// # Errors
/// 422 when `X-Actor` has not 1 to 100 characters, or the reason is blank.
fn order(request: &Request, Admin(caller): &Admin, reason: &str) -> Result<Order, Problem> {
    let actor = match given_actor(request)? {
        Some(actor) => actor,
        None => default_actor(caller),
    };
    Order::new(&actor, Via::Http, reason).map_err(|expected| {
        FieldError::new("value_error", format!("Value error, {expected}")).at_text("body", "reason", reason).into()
    })
}

/// The value of `X-Actor`.
fn given_actor(request: &Request) -> Result<Option<String>, Problem> {
    let mut lines = request.headers().get_all(ACTOR).iter();
    let Some(value) = lines.next() else { return Ok(None) };
    let refuse = |error: FieldError, text: &str| Problem::from(error.at_text("header", "X-Actor", text));
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| refuse(FieldError::not_unicode(), ""))?.trim();
    if lines.next().is_some() {
        return Err(refuse(FieldError::value_error("X-Actor must be given once"), text));
    }
    match text.chars().count() {
        0 => Err(refuse(FieldError::too_short(1), text)),
        1..=MAX_ACTOR => Ok(Some(text.to_owned())),
        _ => Err(refuse(FieldError::too_long(MAX_ACTOR), text)),
    }
}

/// The name of a caller that gives none.
fn default_actor(caller: &Caller) -> String {
    match caller {
        Caller::Key(Key::Admin) => "admin key".into(),
        // Cut, because another service may issue subjects of any length.
        other => other.to_string().chars().take(MAX_ACTOR).collect(),
    }
}

/// Checks that a name or id in a path can exist: PostgreSQL rejects a text with NUL.
///
/// # Errors
/// 404 with this detail.
fn check_name<'a>(name: &'a str, unknown: &'static str) -> Result<&'a str, Problem> {
    if name.contains('\0') || name.chars().count() > MAX_NAME { Err(not_found(unknown)) } else { Ok(name) }
}

fn not_found(detail: &'static str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, detail)
}

fn conflict(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::CONFLICT, detail)
}

#[cfg(test)]
mod tests {
    use ::jobs::users::UserId;
    use poem::http::HeaderValue;

    use super::*;

    #[test]
    fn the_actor_is_the_header_else_the_caller() {
        let actor = |given: &[&[u8]], caller: Caller| {
            let mut request = Request::default();
            for value in given {
                request.headers_mut().append(ACTOR, HeaderValue::from_bytes(value).expect("a header"));
            }
            order(&request, &Admin(caller), "why").map(|order| order.actor).map_err(|problem| problem.to_string())
        };
        let admin = || Caller::Key(Key::Admin);
        assert_eq!(actor(&[], admin()), Ok("admin key".into()));
        assert_eq!(actor(&[], Caller::User(UserId(7))), Ok("user 7".into()));
        assert_eq!(actor(&[], Caller::Subject("s".repeat(600))).map(|name| name.len()), Ok(MAX_ACTOR));
        assert_eq!(actor(&[b" ada "], Caller::User(UserId(7))), Ok("ada".into()));
        assert_eq!(actor(&["Zoë".as_bytes()], admin()), Ok("Zoë".into()));
        let refused: [&[&[u8]]; 5] = [&[b""], &[b"  "], &[&[b'a'; 101]], &[b"\xff"], &[b"ada", b"bob"]];
        for given in refused {
            assert_eq!(actor(given, admin()), Err("422 Unprocessable Entity".into()), "{given:?}");
        }
    }

    #[test]
    fn a_name_that_cannot_exist_is_unknown() {
        assert!(check_name("process_transaction", "Unknown queue").is_ok());
        for name in ["a\0b", &"a".repeat(501)] {
            assert!(check_name(name, "Unknown queue").is_err(), "{name}");
        }
    }
}
