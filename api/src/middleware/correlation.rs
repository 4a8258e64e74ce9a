//! Correlation id and trace context of a request. They go into the response, the log and every job that it enqueues.

use poem::{
    Request,
    http::{HeaderName, HeaderValue},
};
use queue::Origin;
use runtime::telemetry::traces::span::{self, Span};
use uuid::Uuid;

use super::observe;

/// The header with the correlation id, in requests and responses.
pub const HEADER: HeaderName = HeaderName::from_static("x-correlation-id");
/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// A longer id is replaced by a new one.
const MAX_ID_LENGTH: usize = 128;

/// Accepts the client's correlation id or creates one, and stores the [`Origin`] in the request.
pub fn assign_id(request: &mut Request) -> HeaderValue {
    let given = single_header(request, &HEADER).filter(|id| is_valid_id(id.as_bytes())).cloned();
    let id = given.unwrap_or_else(new_id);
    let traceparent = single_header(request, &TRACEPARENT).and_then(|value| value.to_str().ok());
    let origin = Origin {
        correlation_id: id.to_str().ok().map(Into::into),
        traceparent: traceparent.filter(|value| is_traceparent(value)).map(Into::into),
    };
    request.set_data(origin);
    id
}

/// A new random id.
pub fn new_id() -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let id = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    // A UUID is always a valid header value.
    HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("none"))
}

/// The value of a header that occurs exactly once. A repeated header is ambiguous and ignored.
fn single_header<'a>(request: &'a Request, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut given = request.headers().get_all(name).iter();
    given.next().filter(|_| given.next().is_none())
}

/// Routes that monitoring systems poll every few seconds. They are traced only within the client's own trace; otherwise
/// they would dominate all traces.
const MONITORING_ROUTES: [&str; 6] =
    ["/livez", "/readyz", "/metrics", "/api/v1/health", "/api/v1/health/ready", "/api/v1/ready"];

/// Whether monitoring systems poll this route.
pub fn is_monitoring_route(route: &str) -> bool {
    MONITORING_ROUTES.contains(&route)
}

/// Starts the request's span, as a child of the client's span if the request has a `traceparent`. Jobs that the request
/// enqueues refer to this span. Without a trace exporter this does nothing.
pub fn start_span(request: &mut Request, route: &str, correlation_id: &str) -> Span {
    if !span::is_exporting() {
        return Span::NONE;
    }
    let mut origin = origin(request);
    if origin.traceparent.is_none() && is_monitoring_route(route) {
        return Span::NONE;
    }
    let method = observe::method_label(request.method());
    let span = Span::server(method, route, request.uri().path(), origin.traceparent.as_deref(), correlation_id);
    origin.traceparent = span.traceparent().or(origin.traceparent);
    request.set_data(origin);
    span
}

/// The correlation id and trace context of a request; empty if it did not pass through a `RouteService`.
pub fn origin(request: &Request) -> Origin {
    request.data::<Origin>().cloned().unwrap_or_default()
}

/// `[A-Za-z0-9._:@/+=-]{1,128}`: safe in a header, a log line, a URL and a shell.
fn is_valid_id(id: &[u8]) -> bool {
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:@/+=-".contains(byte);
    (1..=MAX_ID_LENGTH).contains(&id.len()) && id.iter().all(safe)
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
    let nonzero = |part: &str| part.bytes().any(|b| b != b'0');
    version != "ff"
        && nonzero(trace)
        && nonzero(parent)
        && (version != "00" || parts.next().is_none())
        && value.len() <= 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_a_safe_id() {
        for id in ["a", "31bef03e-4f3d-4c59-a7bb-612049c6018a", "A9._:@/+=-", &"x".repeat(128)] {
            assert!(is_valid_id(id.as_bytes()), "{id}");
        }
        for id in ["", "a b", "a\nb", "ä", "a\"b", &"x".repeat(129)] {
            assert!(!is_valid_id(id.as_bytes()), "{id}");
        }
    }

    #[test]
    fn recognises_a_valid_traceparent() {
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
