//! How large a body may be and how long it may take: checked before reading it and while reading it. What is left of a
//! refused body is read and dropped by its connection.

use std::time::Duration;

use futures_util::StreamExt;
use hyper::body::Bytes;
use poem::{
    Body, Request,
    http::{StatusCode, header},
};

use crate::problem::Problem;

/// The largest body: a thousand times what a webhook needs.
pub const LARGEST: usize = 1024 * 1024;
/// The time a whole body may take: 1 MiB at 35 KiB/s.
const WITHIN: Duration = Duration::from_secs(30);

/// Refuses a body that is announced as too large.
///
/// # Errors
/// 413.
pub fn check_declared(request: &Request) -> Result<(), Problem> {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    // What is no number here is refused by the HTTP library before.
    match declared.and_then(|value| value.parse::<u64>().ok()) {
        Some(length) if length > LARGEST as u64 => Err(too_large()),
        _ => Ok(()),
    }
}

/// Reads a whole body. Every handler that wants a body reads it through here.
///
/// # Errors
/// 413 when it turns out larger than announced, 408 when it takes too long, 400 when it breaks off.
pub async fn read(body: Body) -> Result<Bytes, Problem> {
    match tokio::time::timeout(WITHIN, collect(body)).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive within 30 s.")),
    }
}

async fn collect(body: Body) -> Result<Bytes, Problem> {
    let mut chunks = body.into_bytes_stream();
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "The body broke off."))?;
        if first.len() + rest.len() + chunk.len() > LARGEST {
            return Err(too_large());
        }
        // Most bodies are one chunk, which is then handed on without a copy.
        if first.is_empty() { first = chunk } else { rest.extend_from_slice(&chunk) }
    }
    if rest.is_empty() { Ok(first) } else { Ok([&first[..], &rest[..]].concat().into()) }
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "The body must not be larger than 1 MiB.")
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
        const HALF: &[u8] = &[b'x'; LARGEST / 2];
        assert_eq!(read(chunked(vec![])).await.map(|body| body.len()).ok(), Some(0));
        assert_eq!(read(chunked(vec![Ok(b"ab"), Ok(b""), Ok(b"c")])).await.ok().as_deref(), Some(&b"abc"[..]));
        assert_eq!(read(chunked(vec![Ok(HALF), Ok(HALF)])).await.map(|body| body.len()).ok(), Some(LARGEST));
        let more = read(chunked(vec![Ok(HALF), Ok(HALF), Ok(b"x")])).await.expect_err("too large");
        assert_eq!(more.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let broken = read(chunked(vec![Ok(b"ab"), Err(io::ErrorKind::ConnectionReset.into())])).await;
        assert_eq!(broken.expect_err("broken off").status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_on_a_body_that_does_not_come() {
        let never = Body::from_bytes_stream(futures_util::stream::pending::<io::Result<Bytes>>());
        assert_eq!(read(never).await.expect_err("too late").status(), StatusCode::REQUEST_TIMEOUT);
    }
}
