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

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    Ok,
    /// The provider does not offer it.
    NotOffered,
    /// Rate limited, banned, or blocked by a firewall.
    Limited,
    /// No response, or one that is broken or unreadable.
    Failed,
}

impl RequestOutcome {
    const ALL: [Self; 4] = [Self::Ok, Self::NotOffered, Self::Limited, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotOffered => "not_offered",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
    }
}

/// The metrics of one provider.
pub struct ProviderMetrics {
    provider: ProviderId,
    duration: Histogram,
    /// 1 while the circuit breaker is open.
    pub breaker: Gauge,
}

impl ProviderMetrics {
    /// Describes the metrics and registers every series.
    pub fn new(provider: ProviderId) -> Self {
        describe_counter!(REQUESTS, "Requests to price providers, by outcome.");
        describe_histogram!(DURATION, Unit::Seconds, "Duration of requests to price providers.");
        describe_gauge!(BREAKER, "1 while the circuit breaker of a price provider is open.");
        describe_counter!(REJECTED, "Rows of price providers that broke an invariant and were not stored, by reason.");
        let metrics = Self {
            provider,
            duration: histogram!(DURATION, "provider" => provider.as_str()),
            breaker: gauge!(BREAKER, "provider" => provider.as_str()),
        };
        metrics.breaker.set(0.0);
        RequestOutcome::ALL.into_iter().for_each(|outcome| metrics.requests(outcome).absolute(0));
        RejectReason::ALL.into_iter().for_each(|reason| metrics.rejections(reason).absolute(0));
        metrics
    }

    fn requests(&self, outcome: RequestOutcome) -> Counter {
        counter!(REQUESTS, "provider" => self.provider.as_str(), "outcome" => outcome.as_str())
    }

    fn rejections(&self, reason: RejectReason) -> Counter {
        counter!(REJECTED, "provider" => self.provider.as_str(), "reason" => reason.as_str())
    }

    /// Records the outcome and the duration of a request.
    pub fn record_request(&self, outcome: RequestOutcome, took: Duration) {
        self.requests(outcome).increment(1);
        self.duration.record(took.as_secs_f64());
    }

    /// Counts a rejected row.
    pub fn record_rejected_row(&self, reason: RejectReason) {
        self.rejections(reason).increment(1);
    }
}
