//! The metrics of a provider. Every series is registered at 0.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::prices::{model::ProviderId, normalise::RejectReason};

const REQUESTS: &str = "millrace_provider_requests_total";
const DURATION: &str = "millrace_provider_request_duration_seconds";
const BREAKER: &str = "millrace_provider_breaker_open";
const REJECTED: &str = "millrace_prices_rejected_total";
/// All values of the label `outcome`: the outcomes of a request.
const OUTCOMES: [&str; 4] = ["ok", "not_offered", "limited", "failed"];

/// The metrics of one provider.
pub(super) struct ProviderMetrics {
    provider: &'static str,
    duration: Histogram,
    /// 1 while the circuit breaker is open.
    pub breaker: Gauge,
}

impl ProviderMetrics {
    /// Describes the metrics and registers every series.
    pub(super) fn new(provider: ProviderId) -> Self {
        describe_counter!(REQUESTS, "Requests to price providers, by outcome.");
        describe_histogram!(DURATION, Unit::Seconds, "Duration of requests to price providers.");
        describe_gauge!(BREAKER, "1 while the circuit breaker of a price provider is open.");
        describe_counter!(REJECTED, "Rows of price providers that broke an invariant and were not stored, by reason.");
        let provider = provider.as_str();
        let (duration, breaker) =
            (histogram!(DURATION, "provider" => provider), gauge!(BREAKER, "provider" => provider));
        breaker.set(0.0);
        let metrics = Self { provider, duration, breaker };
        OUTCOMES.into_iter().for_each(|outcome| metrics.requests(outcome).absolute(0));
        RejectReason::ALL.iter().for_each(|reason| metrics.rejections(*reason).absolute(0));
        metrics
    }

    fn requests(&self, outcome: &'static str) -> Counter {
        counter!(REQUESTS, "provider" => self.provider, "outcome" => outcome)
    }

    fn rejections(&self, reason: RejectReason) -> Counter {
        counter!(REJECTED, "provider" => self.provider, "reason" => reason.as_str())
    }

    /// Records the outcome and the duration of a request.
    pub(super) fn record_request(&self, outcome: &'static str, took: Duration) {
        self.requests(outcome).increment(1);
        self.duration.record(took.as_secs_f64());
    }

    /// Counts a rejected row.
    pub(super) fn record_rejected_row(&self, reason: RejectReason) {
        self.rejections(reason).increment(1);
    }
}
