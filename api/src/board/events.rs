//! The stream of the first page's snapshots.

use poem::{Body, Request, Response, http::StatusCode};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::state::State;
use crate::problem::Problem;

/// Responds with the stream of snapshots. It ends with the session.
///
/// # Errors
/// 401 without a session. A redirect to the login would be followed, and fail with another error.
pub(super) fn show(state: &State, request: &Request) -> Result<Response, Problem> {
    let now = OffsetDateTime::now_utc();
    let session = state.sessions.of(request, now);
    let session = session.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "Log in to watch the board."))?;
    let events = state.snapshots.watch(Instant::now() + session.remaining(now));
    // A proxy that collects a response before it passes it on would hold all events back.
    let response = Response::builder().content_type("text/event-stream").header("x-accel-buffering", "no");
    Ok(response.body(Body::from_bytes_stream(events)))
}
