//! The streams of the snapshots of pages.

use poem::{Body, Request, Response, http::StatusCode};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{live::Snapshots, state::State};
use crate::problem::Problem;

/// Responds with the stream of the snapshots of a page. It ends with the session.
///
/// # Errors
/// 401 without a session. A redirect to the login would be followed, and fail with another error.
pub(super) fn show(state: &State, snapshots: &Snapshots, request: &Request) -> Result<Response, Problem> {
    let now = OffsetDateTime::now_utc();
    let session = state.sessions.of(request, now);
    let session = session.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "Log in to watch the board."))?;
    let events = snapshots.watch(Instant::now() + session.remaining(now));
    // A proxy that collects a response before it passes it on would hold all events back.
    let response = Response::builder().content_type("text/event-stream").header("x-accel-buffering", "no");
    Ok(response.body(Body::from_bytes_stream(events)))
}
