//! What is counted of each source, present at zero from the start.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::prices::{model::Source, normalise::Reason};

const REQUESTS: &str = "millrace_provider_requests_total";
const DURATION: &str = "millrace_provider_request_duration_seconds";
const BREAKER: &str = "millrace_provider_breaker_open";
const REJECTED: &str = "millrace_prices_rejected_total";

/// How a request to a source ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// It does not have what was asked for.
    NotOffered,
    /// Its limits, its ban or its firewall.
    Limited,
    /// No answer, a broken one, or one that cannot be read.
    Failed,
}

impl Outcome {
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

/// The series of one source.
pub struct Series {
    source: Source,
    duration: Histogram,
    /// 1 while the breaker is open.
    pub breaker: Gauge,
}

impl Series {
    /// Makes every series visible.
    pub fn of(source: Source) -> Self {
        describe_counter!(REQUESTS, "Requests to sources of prices, by outcome.");
        describe_histogram!(DURATION, Unit::Seconds, "How long sources of prices took to answer.");
        describe_gauge!(BREAKER, "1 while a source of prices is not asked because it kept failing.");
        describe_counter!(REJECTED, "Rows of sources that broke an invariant and were not stored, by reason.");
        let provider = source.as_str();
        let series = Self {
            source,
            duration: histogram!(DURATION, "provider" => provider),
            breaker: gauge!(BREAKER, "provider" => provider),
        };
        series.breaker.set(0.0);
        Outcome::ALL.into_iter().for_each(|outcome| series.requests(outcome).absolute(0));
        Reason::ALL.into_iter().for_each(|reason| series.rejections(reason).absolute(0));
        series
    }

    fn requests(&self, outcome: Outcome) -> Counter {
        counter!(REQUESTS, "provider" => self.source.as_str(), "outcome" => outcome.as_str())
    }

    fn rejections(&self, reason: Reason) -> Counter {
        counter!(REJECTED, "provider" => self.source.as_str(), "reason" => reason.as_str())
    }

    /// A request ended so, after this time.
    pub fn asked(&self, outcome: Outcome, took: Duration) {
        self.requests(outcome).increment(1);
        self.duration.record(took.as_secs_f64());
    }

    /// A row was rejected.
    pub fn rejected(&self, reason: Reason) {
        self.rejections(reason).increment(1);
    }
}
