//! Correlation id and trace context of a request. They go into the response, the log and every job that it enqueues.

use poem::{
    Request,
    http::{HeaderName, HeaderValue},
};
use queue::Origin;
use runtime::telemetry::traces::{
    span::{self, Span},
    traceparent,
};
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
    let given = single_header(request, &TRACEPARENT).and_then(|value| value.to_str().ok());
    let origin = Origin {
        correlation_id: id.to_str().ok().map(Into::into),
        traceparent: given.filter(|value| traceparent::is_valid(value)).map(Into::into),
    };
    request.set_data(origin);
    id
}

/// A new id. It grows with time, so that the index of the transactions' ids grows at its end.
pub fn new_id() -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let id = Uuid::now_v7().hyphenated().encode_lower(&mut buffer);
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

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

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
    fn hostile_ids_are_safe_or_replaced() -> Result<(), hostile::Failure> {
        let corpus = include_str!("../../../tests/corpora/correlation_id.txt");
        hostile::check_bytes(corpus, "[A-Za-z0-9._:@/+=-]{0,140}".prop_map(String::into_bytes), |bytes| {
            let Ok(value) = HeaderValue::from_bytes(bytes) else { return Ok(()) };
            let mut request = Request::builder().header(HEADER, value).finish();
            let id = assign_id(&mut request);
            let text = id.to_str().expect("visible characters");
            let unsafe_ones = |c: char| !c.is_ascii_alphanumeric() && !"._:@/+=-".contains(c);
            prop_assert!((1..=128).contains(&text.len()) && !text.contains(unsafe_ones), "{}", text);
            // A safe id is kept, and any other is replaced by a new one.
            let given = std::str::from_utf8(bytes).ok();
            let is_safe = given.is_some_and(|id| (1..=128).contains(&id.len()) && !id.contains(unsafe_ones));
            prop_assert_eq!(given == Some(text), is_safe, "{}", text);
            let stored = origin(&request).correlation_id;
            prop_assert_eq!(stored.as_deref(), Some(text));
            Ok(())
        })
    }
}
