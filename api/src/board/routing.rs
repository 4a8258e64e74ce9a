//! Finds the page of a path, after the login is checked.

use percent_encoding::percent_decode_str;
use poem::{
    Request, Response,
    http::{Method, StatusCode},
};
use time::OffsetDateTime;

use super::{
    assets, audit, callbacks, database, dead, events, find,
    form::Form,
    format, jobs, login, now, queues, replays, scale, schedules,
    state::State,
    trends,
    visit::{Visit, redirect},
    workers,
};
use crate::{auth::forbidden, middleware::body_limit, problem::Problem};

/// Responds to a request.
///
/// # Errors
/// The problem whose page is shown instead.
pub(super) async fn respond(state: &State, mut request: Request) -> Result<Response, Problem> {
    let path = segments(request.uri().path());
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let is_post = request.method() == Method::POST;
    if let ([name], false) = (&path[..], is_post)
        && let Some(asset) = assets::find(name)
    {
        return Ok(asset);
    }
    let form = if is_post { Form::parse(&body_limit::read(request.take_body()).await?) } else { Form::default() };
    if path == ["login"] {
        return if is_post { login::submit(state, &request, &form).await } else { login::show(state, &request) };
    }
    if let (["events", page @ ..], false) = (&path[..], is_post) {
        let snapshots = state.snapshots.of(page).ok_or_else(no_page)?;
        return events::show(state, snapshots, &request);
    }
    let Some(session) = state.sessions.of(&request, OffsetDateTime::now_utc()) else {
        let here = request.uri().path_and_query().map(ToString::to_string).filter(|_| !is_post);
        return Ok(redirect(&format::link("/board/login", &[("next", here.as_deref())])));
    };
    let query = Form::parse(request.uri().query().unwrap_or_default().as_bytes());
    let visit = Visit { session, query, form };
    if !is_post {
        return page(state, &visit, &path).await;
    }
    if !visit.session.has_csrf(visit.form.get("csrf")) {
        return Err(forbidden("The form is not from this session. Go back, reload the page and send the form again."));
    }
    if path == ["logout"] {
        return Ok(login::logout(state));
    }
    if !visit.can_act() {
        return Err(forbidden("A viewer cannot act. Log in with the admin key."));
    }
    action(state, &visit, &path).await
}

/// The pages.
async fn page(state: &State, visit: &Visit, path: &[&str]) -> Result<Response, Problem> {
    match path {
        [] => now::show(state, visit).await,
        // The first page lists the queues.
        ["queues"] => Ok(redirect(now::PATH)),
        ["queues", queue] => queues::show(state, visit, queue).await,
        ["queues", queue, "trends"] => trends::show(state, visit, queue).await,
        ["jobs"] => jobs::list(state, visit).await,
        ["jobs", "cancel"] => jobs::cancel::preview(state, visit).await,
        ["jobs", id] => jobs::job::show(state, visit, id).await,
        ["dead"] => dead::groups(state, visit).await,
        ["dead", "selection"] => dead::selection(state, visit).await,
        ["dead", "preview"] => dead::preview(state, visit).await,
        ["replays"] => replays::list(state, visit).await,
        ["replays", id] => replays::show(state, visit, id).await,
        ["workers"] => workers::list(state, visit).await,
        ["workers", id] => workers::show(state, visit, id).await,
        ["schedules"] => schedules::list(state, visit).await,
        ["schedules", name] => schedules::fires(state, visit, name).await,
        ["callbacks"] => callbacks::list(state, visit).await,
        ["audit"] => audit::list(state, visit).await,
        ["scale"] => scale::show(state, visit).await,
        ["database"] => database::show(state, visit).await,
        ["find"] => find::show(state, visit).await,
        ["t", id] => find::timeline(state, visit, id).await,
        _ => Err(no_page()),
    }
}

/// The actions, which all need a reason.
async fn action(state: &State, visit: &Visit, path: &[&str]) -> Result<Response, Problem> {
    match path {
        ["queues", queue, "pause"] => queues::pause(state, visit, queue).await,
        ["queues", queue, "resume"] => queues::resume(state, visit, queue).await,
        ["jobs", "cancel"] => jobs::cancel::cancel(state, visit).await,
        ["jobs", id, "cancel"] => jobs::job::cancel(state, visit, id).await,
        ["jobs", id, "replay"] => jobs::job::replay(state, visit, id).await,
        ["jobs", id, "payload"] => jobs::job::open_payload(state, visit, id).await,
        ["dead", "replay"] => dead::replay(state, visit).await,
        ["dead", "discard"] => dead::discard(state, visit).await,
        ["replays", id, change] => replays::change(state, visit, id, change).await,
        ["schedules", name, "fire"] => schedules::fire(state, visit, name).await,
        ["schedules", name, "skip-next"] => schedules::skip_next(state, visit, name).await,
        ["callbacks", "enable"] => callbacks::enable(state, visit).await,
        ["workers", id, "drain"] => workers::drain(state, visit, id).await,
        _ => Err(no_page()),
    }
}

fn no_page() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "The board has no such page.")
}

/// The decoded segments below `/board`. PostgreSQL stores no NUL, so it is replaced.
fn segments(path: &str) -> Vec<String> {
    let below = path.strip_prefix("/board").unwrap_or(path).trim_matches('/');
    let decode = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().replace('\0', "\u{fffd}");
    below.split('/').filter(|segment| !segment.is_empty()).map(decode).collect()
}
