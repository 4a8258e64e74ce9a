//! One log line and one duration measurement per request, also when the client disconnects.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Instant,
};

use metrics::{Histogram, SharedString};
use percent_encoding::percent_decode_str;
use poem::{
    Request, Response,
    http::{HeaderValue, Method, StatusCode, Uri, header},
};
use runtime::telemetry::scope::{Fields, Scope, Value, Visit};

use crate::client_address;

/// Request duration in seconds, by method, route pattern and status.
const DURATION: &str = "http_server_request_duration_seconds";
/// The client disconnected before the response; nginx uses the same status.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// The statuses whose histograms are cached. The lookup for other statuses costs an allocation and a lock.
const CACHED_STATUSES: [u16; 18] =
    [200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 409, 413, 415, 422, 429, CLIENT_CLOSED_REQUEST, 500, 503];

/// The path below which transactions are, as in the `Location` of a webhook's response.
const TRANSACTIONS: &str = "/v1/transactions/";
/// The route label of a request that could not be parsed.
const UNREADABLE: &str = "unreadable";

/// The duration histograms of one operation, one for each of `CACHED_STATUSES`, looked up at first use.
#[derive(Default)]
pub struct DurationHistograms([OnceLock<Histogram>; CACHED_STATUSES.len()]);

/// The scope of all log lines of a request.
pub fn scope(correlation_id: HeaderValue, route: SharedString) -> Scope {
    Scope::new(Arc::new(RequestFields { correlation_id, route }))
}

struct RequestFields {
    correlation_id: HeaderValue,
    route: SharedString,
}

impl Fields for RequestFields {
    fn visit(&self, visit: &mut Visit<'_>) -> fmt::Result {
        visit("correlation_id", Value::Text(self.correlation_id.to_str().unwrap_or_default()))?;
        visit("route", Value::Text(&self.route))
    }
}

/// Logs and measures one request when it is dropped.
///
/// If the client disconnects before the response, the handler's future is dropped. That request is then logged too.
pub struct RequestLog<'a> {
    started: Instant,
    method: Method,
    uri: Uri,
    client: Option<IpAddr>,
    route: &'a SharedString,
    histograms: Option<&'a DurationHistograms>,
    status: u16,
    /// The `Location` of a successful response.
    location: Option<HeaderValue>,
}

impl<'a> RequestLog<'a> {
    /// Starts the measurement.
    pub fn start(request: &Request, route: &'a SharedString, histograms: Option<&'a DurationHistograms>) -> Self {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let client = client_address::forwarded_address(request);
        let (status, location) = (CLIENT_CLOSED_REQUEST, None);
        Self { started: Instant::now(), method, uri, client, route, histograms, status, location }
    }

    /// Sets what the line says of the response.
    pub fn set_response(&mut self, response: &Response) {
        self.status = response.status().as_u16();
        self.location = response.headers().get(header::LOCATION).filter(|_| response.status().is_success()).cloned();
    }

    fn record(&self, seconds: f64) {
        let histogram = || histogram(&self.method, self.route.clone(), self.status);
        let index = CACHED_STATUSES.iter().position(|status| *status == self.status);
        // HEAD uses the operation of GET, but has its own method label.
        let cached = self.histograms.filter(|_| self.method != Method::HEAD);
        match cached.zip(index).and_then(|(cached, index)| cached.0.get(index)) {
            Some(cached) => cached.get_or_init(histogram).record(seconds),
            None => histogram().record(seconds),
        }
    }
}

impl Drop for RequestLog<'_> {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.record(duration.as_secs_f64());
        let duration_ms = duration.as_micros() as f64 / 1000.0;
        let (method, path) = (self.method.as_str(), self.uri.path());
        let client_address = self.client.map(tracing::field::display);
        // The id of a recorded transaction is in no path. With it, logs are searched by what a sender knows.
        let location = self.location.as_ref().and_then(|location| location.to_str().ok());
        let transaction_id = location
            .and_then(|location| location.strip_prefix(TRANSACTIONS))
            .map(|id| percent_decode_str(id).decode_utf8_lossy().into_owned());
        tracing::info!(
            method,
            path,
            status_code = self.status,
            duration_ms,
            client_address,
            transaction_id,
            "COMPLETED_REQUEST"
        );
    }
}

/// Logs and measures a request whose head could not be parsed: its method and path are unknown.
pub fn record_unreadable(status: StatusCode, correlation_id: HeaderValue, reason: &str) {
    scope(correlation_id, UNREADABLE.into()).run(|| {
        tracing::info!(status_code = status.as_u16(), duration_ms = 0.0, reason, "COMPLETED_REQUEST");
    });
    let labels = ("other", UNREADABLE, status.as_u16().to_string());
    metrics::histogram!(DURATION, "method" => labels.0, "route" => labels.1, "status" => labels.2).record(0.0);
}

/// Describes `DURATION` for `/metrics`.
pub fn describe_metrics() {
    metrics::describe_histogram!(
        DURATION,
        metrics::Unit::Seconds,
        "Duration from the head of a request to the head of its response, by method, route pattern and status."
    );
}

/// The duration histogram with these labels. The first call registers it; it is then exported with the count 0.
pub fn histogram(method: &Method, route: SharedString, status: u16) -> Histogram {
    metrics::histogram!(DURATION, "method" => method_label(method), "route" => route, "status" => status.to_string())
}

/// The label of a method. Unknown methods share one label, because clients can invent any number of them.
pub(super) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_share_a_label() {
        assert_eq!(method_label(&Method::PATCH), "PATCH");
        assert_eq!(Method::from_bytes(b"BREW").map(|method| method_label(&method)).ok(), Some("other"));
    }
}
