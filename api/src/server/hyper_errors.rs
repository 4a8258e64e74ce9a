//! Replaces hyper's own error responses to requests that it cannot parse with problem responses.
//!
//! Hyper has no hook for them, so they are recognised when they are written: a head without a body, in one piece, with
//! `content-length: 0`. Our own responses always have a correlation id in their head.

use hyper::body::Bytes;
use poem::http::StatusCode;

use crate::{
    middleware::{correlation, observe},
    problem::{self, Problem},
};

/// Returns the problem response if these bytes are one of hyper's error responses.
///
/// The request is logged and measured here, so the caller must send the returned bytes.
pub(super) fn to_problem_response(written: &[u8]) -> Option<Bytes> {
    if !written.starts_with(b"HTTP/1.") {
        return None;
    }
    let head = std::str::from_utf8(written).ok()?.strip_suffix("\r\n\r\n")?;
    let status: u16 = head.get(9..12)?.parse().ok().filter(|status| (400..500).contains(status))?;
    let mut lines: Vec<&str> = head.lines().collect();
    let count = lines.len();
    lines.retain(|line| *line != "content-length: 0");
    if lines.len() == count
        || lines.iter().any(|line| line.is_empty() || line.starts_with(correlation::HEADER.as_str()))
    {
        return None;
    }
    let status = StatusCode::from_u16(status).ok()?;
    let correlation_id = correlation::new_id();
    let id = correlation_id.to_str().ok()?;
    let detail = detail(status);
    observe::record_unreadable(status, correlation_id.clone(), detail);
    let body = Problem::new(status, detail).to_json(Some(id));
    let added = format!(
        "content-type: {}\r\n{}: {id}\r\ncache-control: no-store\r\ncontent-length: {}\r\n\r\n",
        problem::CONTENT_TYPE,
        correlation::HEADER,
        body.len(),
    );
    let head = lines.join("\r\n") + "\r\n" + &added;
    Some([head.into_bytes(), body].concat().into())
}

fn detail(status: StatusCode) -> &'static str {
    match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "A request must have at most 100 headers, and its head must not be larger than 64 KiB."
        }
        StatusCode::URI_TOO_LONG => "The target of a request must be shorter than 64 KiB.",
        _ => "The request is not HTTP/1.1: its first line or one of its headers is malformed.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_of_hyper_becomes_a_problem() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let response = to_problem_response(bare).expect("recognised");
        let text = std::str::from_utf8(&response).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ndate: x\r\n"));
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let id = problem["correlation_id"].as_str().unwrap_or_default();
        assert!(head.contains(&format!("\r\nx-correlation-id: {id}\r\n")) && id.len() == 36, "{text}");
        assert_eq!(problem["status"], 431);
    }

    #[test]
    fn other_bytes_are_unchanged() {
        for other in [
            "",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\nx-correlation-id: a\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n{}",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n{}\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 10\r\n\r\n",
            "HTTP/1.1 4",
            "GET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
        ] {
            assert!(to_problem_response(other.as_bytes()).is_none(), "{other:?}");
        }
    }
}
