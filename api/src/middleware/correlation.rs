//! Where a request comes from: the id and trace that go with it into the answer, the log and every job it enqueues.

use jobs::{
    boot::telemetry::traces::span::{self, Span},
    queue::Origin,
};
use poem::{
    Request,
    http::{HeaderName, HeaderValue},
};
use uuid::Uuid;

use super::observe;

/// The header that carries the correlation id, both ways.
pub const HEADER: HeaderName = HeaderName::from_static("x-correlation-id");
/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Longer ids are replaced by one of ours.
const LONGEST_ID: usize = 128;

/// Takes the caller's correlation id over, or makes one, and leaves the [`Origin`] with the request.
pub fn adopt(request: &mut Request) -> HeaderValue {
    let given = only(request, &HEADER).filter(|id| is_id(id.as_bytes())).cloned();
    let id = given.unwrap_or_else(new_id);
    let traceparent = only(request, &TRACEPARENT).and_then(|value| value.to_str().ok());
    let origin = Origin {
        correlation_id: id.to_str().ok().map(Into::into),
        traceparent: traceparent.filter(|value| is_traceparent(value)).map(Into::into),
    };
    request.set_data(origin);
    id
}

/// An id of our own.
pub fn new_id() -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let id = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    // A UUID is always valid in a header.
    HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("none"))
}

/// The value of a header that is given once: two lines are two opinions, and name nothing.
fn only<'a>(request: &'a Request, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut given = request.headers().get_all(name).iter();
    given.next().filter(|_| given.next().is_none())
}

/// What machines ask every few seconds: traced only as part of a trace that it came with, or there would be little else.
const WATCHED: [&str; 6] = ["/livez", "/readyz", "/metrics", "/api/v1/health", "/api/v1/health/ready", "/api/v1/ready"];

/// Whether machines ask this route for the health of the process.
pub fn is_watched(route: &str) -> bool {
    WATCHED.contains(&route)
}

/// Begins the request's span, below its caller's when that came with it; what the request enqueues comes from this one.
/// Nothing changes when nothing is exported.
pub fn trace(request: &mut Request, route: &str, correlation_id: &str) -> Span {
    if !span::on() {
        return Span::NONE;
    }
    let mut origin = origin(request);
    if origin.traceparent.is_none() && is_watched(route) {
        return Span::NONE;
    }
    let method = observe::method_label(request.method());
    let span = Span::server(method, route, request.uri().path(), origin.traceparent.as_deref(), correlation_id);
    origin.traceparent = span.traceparent().or(origin.traceparent);
    request.set_data(origin);
    span
}

/// Where this request comes from; empty for one that did not pass the edge.
pub fn origin(request: &Request) -> Origin {
    request.data::<Origin>().cloned().unwrap_or_default()
}

/// `[A-Za-z0-9._:@/+=-]{1,128}`: what is safe in a header, a log line, a URL and a shell.
fn is_id(id: &[u8]) -> bool {
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:@/+=-".contains(byte);
    (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(safe)
}

/// `version-trace-parent-flags` in lower-case hex; later versions may append fields.
fn is_traceparent(value: &str) -> bool {
    let mut parts = value.split('-');
    let mut hex = |length: usize| {
        let part = parts.next().unwrap_or_default();
        let valid = part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then_some(part)
    };
    let (Some(version), Some(trace), Some(parent), Some(_flags)) = (hex(2), hex(32), hex(16), hex(2)) else {
        return false;
    };
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    version != "ff" && some(trace) && some(parent) && (version != "00" || parts.next().is_none()) && value.len() <= 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_safe_id() {
        for id in ["a", "31bef03e-4f3d-4c59-a7bb-612049c6018a", "A9._:@/+=-", &"x".repeat(128)] {
            assert!(is_id(id.as_bytes()), "{id}");
        }
        for id in ["", "a b", "a\nb", "ä", "a\"b", &"x".repeat(129)] {
            assert!(!is_id(id.as_bytes()), "{id}");
        }
    }

    #[test]
    fn knows_a_valid_traceparent() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        for valid in [format!("00-{trace}-b7ad6b7169203331-01"), format!("01-{trace}-b7ad6b7169203331-00-more")] {
            assert!(is_traceparent(&valid), "{valid}");
        }
        for wrong in [
            String::new(),
            format!("00-{trace}-b7ad6b7169203331-01-more"),
            format!("ff-{trace}-b7ad6b7169203331-01"),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()),
            format!("00-{trace}-b7ad6b7169203331"),
        ] {
            assert!(!is_traceparent(&wrong), "{wrong}");
        }
    }
}
