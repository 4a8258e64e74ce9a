//! One log line and one measurement per request, however it ends.

use std::{net::IpAddr, sync::OnceLock, time::Instant};

use metrics::{Histogram, SharedString};
use poem::{
    Request,
    http::{Method, StatusCode, Uri},
};

use crate::client_address;

/// How long requests take, in seconds, by method, route pattern and status.
pub const DURATION: &str = "http_server_request_duration_seconds";
/// Bucket edges of [`DURATION`]: from a cached read to a long poll, with one at the half second that was promised.
pub const DURATION_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Nobody waited for the answer; nginx's number for it.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// The statuses whose histograms are remembered. Any other one is looked up, which costs an allocation and a lock.
const USUAL: [u16; 18] =
    [200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 409, 413, 415, 422, 429, CLIENT_CLOSED_REQUEST, 500, 503];

/// The route of a request that could not be read.
const UNREADABLE: &str = "unreadable";

/// The histograms of one operation, one for each usual status, looked up when first needed.
#[derive(Default)]
pub struct Timings([OnceLock<Histogram>; USUAL.len()]);

/// The line of a request that is being answered. It is written when this is dropped, so a client that goes away
/// before its answer, which drops the handler where it stands, leaves a line too.
pub struct Line<'a> {
    began: Instant,
    method: Method,
    uri: Uri,
    client: Option<IpAddr>,
    route: &'a SharedString,
    timings: Option<&'a Timings>,
    status: u16,
}

impl<'a> Line<'a> {
    /// Starts the clock.
    pub fn begin(request: &Request, route: &'a SharedString, timings: Option<&'a Timings>) -> Self {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let client = client_address::behind_proxies(request);
        Self { began: Instant::now(), method, uri, client, route, timings, status: CLIENT_CLOSED_REQUEST }
    }

    /// Says how it ended.
    pub fn finish(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }

    fn record(&self, seconds: f64) {
        let histogram = || histogram(&self.method, self.route.clone(), self.status);
        let usual = USUAL.iter().position(|status| *status == self.status);
        // HEAD is answered by the operation of GET, but is a method of its own.
        let timings = self.timings.filter(|_| self.method != Method::HEAD);
        match timings.zip(usual).and_then(|(timings, at)| timings.0.get(at)) {
            Some(remembered) => remembered.get_or_init(histogram).record(seconds),
            None => histogram().record(seconds),
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        self.record(took.as_secs_f64());
        let duration_ms = took.as_micros() as f64 / 1000.0;
        let (method, path) = (self.method.as_str(), self.uri.path());
        let client_address = self.client.map(tracing::field::display);
        tracing::info!(method, path, status_code = self.status, duration_ms, client_address, "COMPLETED_REQUEST");
    }
}

/// The line and the measurement of a request whose head could not be read: neither its method nor its path is known.
pub fn unreadable(status: StatusCode, correlation_id: &str, reason: &str) {
    let span = tracing::info_span!("request", correlation_id, route = UNREADABLE);
    span.in_scope(|| {
        tracing::info!(status_code = status.as_u16(), duration_ms = 0.0, reason, "COMPLETED_REQUEST");
    });
    let labels = ("other", UNREADABLE, status.as_u16().to_string());
    metrics::histogram!(DURATION, "method" => labels.0, "route" => labels.1, "status" => labels.2).record(0.0);
}

/// Says what [`DURATION`] means.
pub fn describe() {
    metrics::describe_histogram!(
        DURATION,
        metrics::Unit::Seconds,
        "How long requests took, from their head to the head of their answer, by method, route pattern and status."
    );
}

/// The measurements of one kind of answer; there, and empty, from the moment that this is first called.
pub fn histogram(method: &Method, route: SharedString, status: u16) -> Histogram {
    metrics::histogram!(DURATION, "method" => method_label(method), "route" => route, "status" => status.to_string())
}

/// The methods of HTTP; clients can make up any number of others.
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
    fn made_up_methods_share_a_label() {
        assert_eq!(method_label(&Method::PATCH), "PATCH");
        assert_eq!(Method::from_bytes(b"BREW").map(|method| method_label(&method)).ok(), Some("other"));
    }

    #[test]
    fn half_a_second_is_an_edge() {
        assert!(DURATION_BUCKETS.contains(&0.5));
        assert!(DURATION_BUCKETS.is_sorted());
    }
}
