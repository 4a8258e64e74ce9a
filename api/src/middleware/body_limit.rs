//! Size limit and timeout of request bodies. The size is checked by `Content-Length` before reading, and again while reading.
//!
//! The connection reads and drops the rest of a refused body.

use std::time::Duration;

use futures_util::StreamExt;
use hyper::body::Bytes;
use poem::{
    Body, Request,
    http::{StatusCode, header},
};

use crate::problem::Problem;

/// The largest body of most routes in bytes: about 1,000 times the size of a webhook.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The largest body of a [`BATCH_ROUTE`] in bytes.
pub const MAX_BATCH_BYTES: usize = 4 * MAX_BODY_BYTES;
/// The route whose body has many rows.
pub const BATCH_ROUTE: &str = "/v1/webhooks/transactions/batch";
/// The time limit for a whole body: 1 MiB at 35 KiB/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest body of a route in bytes.
pub fn max_bytes(route: &str) -> usize {
    if route == BATCH_ROUTE { MAX_BATCH_BYTES } else { MAX_BODY_BYTES }
}

/// Refuses a request whose `Content-Length` is too large.
///
/// # Errors
/// 413 when `Content-Length` exceeds `max_bytes`.
pub fn check_declared(request: &Request, max_bytes: usize) -> Result<(), Problem> {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    // hyper has already refused a value that is not a number.
    match declared.and_then(|value| value.parse::<u64>().ok()) {
        Some(length) if length > max_bytes as u64 => Err(too_large(max_bytes)),
        _ => Ok(()),
    }
}

/// Reads a whole body of at most [`MAX_BODY_BYTES`]. Every handler reads its body through this function or [`read_up_to`].
///
/// # Errors
/// 413 when the body is too large, 408 when it takes too long, 400 when the connection breaks.
pub async fn read(body: Body) -> Result<Bytes, Problem> {
    read_up_to(body, MAX_BODY_BYTES).await
}

/// Reads a whole body of at most `max_bytes`.
///
/// # Errors
/// As [`read`].
pub async fn read_up_to(body: Body, max_bytes: usize) -> Result<Bytes, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, collect(body, max_bytes)).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive within 30 s.")),
    }
}

async fn collect(body: Body, max_bytes: usize) -> Result<Bytes, Problem> {
    let mut chunks = body.into_bytes_stream();
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "The body broke off."))?;
        if first.len() + rest.len() + chunk.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
        // Most bodies are one chunk, which is returned without a copy.
        if first.is_empty() { first = chunk } else { rest.extend_from_slice(&chunk) }
    }
    if rest.is_empty() { Ok(first) } else { Ok([&first[..], &rest[..]].concat().into()) }
}

fn too_large(max_bytes: usize) -> Problem {
    let detail = format!("The body must not be larger than {} MiB.", max_bytes >> 20);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

#[cfg(test)]
mod tests {
    use std::io;

    use poem::error::ResponseError;

    use super::*;

    fn chunked(chunks: Vec<io::Result<&'static [u8]>>) -> Body {
        Body::from_bytes_stream(futures_util::stream::iter(chunks))
    }

    #[tokio::test]
    async fn reads_up_to_the_limit() {
        const HALF: &[u8] = &[b'x'; MAX_BODY_BYTES / 2];
        assert_eq!(read(chunked(vec![])).await.map(|body| body.len()).ok(), Some(0));
        assert_eq!(read(chunked(vec![Ok(b"ab"), Ok(b""), Ok(b"c")])).await.ok().as_deref(), Some(&b"abc"[..]));
        assert_eq!(read(chunked(vec![Ok(HALF), Ok(HALF)])).await.map(|body| body.len()).ok(), Some(MAX_BODY_BYTES));
        let more = read(chunked(vec![Ok(HALF), Ok(HALF), Ok(b"x")])).await.expect_err("too large");
        assert_eq!(more.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let broken = read(chunked(vec![Ok(b"ab"), Err(io::ErrorKind::ConnectionReset.into())])).await;
        assert_eq!(broken.expect_err("broken").status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_times_out() {
        let pending = Body::from_bytes_stream(futures_util::stream::pending::<io::Result<Bytes>>());
        assert_eq!(read(pending).await.expect_err("too late").status(), StatusCode::REQUEST_TIMEOUT);
    }
}
