//! The metrics of callbacks. Every series is registered at 0.

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

use super::model::DestinationProblem;

const CALLBACKS: &str = "millrace_callbacks_total";
const REQUEST: &str = "millrace_callback_request_duration_seconds";
const DELIVERY: &str = "millrace_callback_delivery_seconds";
const DESTINATIONS: &str = "millrace_callback_destinations";

/// The series, looked up once.
#[derive(Clone)]
pub(super) struct CallbackMetrics {
    pub delivered: Counter,
    /// Failed tries.
    pub failed: Counter,
    pub gave_up: Counter,
    /// The duration of a try.
    pub request: Histogram,
    /// The time from a settlement to its delivery.
    pub delivery: Histogram,
}

impl CallbackMetrics {
    /// Describes the metrics and registers every series.
    pub(super) fn new() -> Self {
        describe_counter!(CALLBACKS, "Callbacks: delivered, failed tries, and those that were given up.");
        describe_histogram!(REQUEST, Unit::Seconds, "Duration of requests to receivers of callbacks.");
        describe_histogram!(DELIVERY, Unit::Seconds, "From a settlement to the receiver's 2xx.");
        let of = |outcome: &'static str| {
            let counter = counter!(CALLBACKS, "outcome" => outcome);
            counter.absolute(0);
            counter
        };
        Self {
            delivered: of("delivered"),
            failed: of("failed"),
            gave_up: of("gave_up"),
            request: histogram!(REQUEST),
            delivery: histogram!(DELIVERY),
        }
    }
}

/// The gauge of destinations with a problem, in Prometheus' text format.
pub(super) fn destinations(problems: &[DestinationProblem]) -> String {
    let disabled = problems.iter().filter(|one| one.disabled_at.is_some()).count();
    let failing = problems.len() - disabled;
    format!(
        "# HELP {DESTINATIONS} Destinations of callbacks that are disabled, or whose last try has failed. The same from every \
         process.\n# TYPE {DESTINATIONS} gauge\n{DESTINATIONS}{{state=\"disabled\"}} {disabled}\n\
         {DESTINATIONS}{{state=\"failing\"}} {failing}\n"
    )
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn a_disabled_destination_is_not_counted_as_failing() {
        let at = Some(OffsetDateTime::UNIX_EPOCH);
        let problem = |failing_since, disabled_at| DestinationProblem {
            name: String::new(),
            failing_since,
            disabled_at,
            disabled_because: disabled_at.map(|_| "410 Gone".into()),
        };
        let text = destinations(&[problem(at, None), problem(at, at), problem(None, at)]);
        assert!(text.contains("\nmillrace_callback_destinations{state=\"disabled\"} 2\n"), "{text}");
        assert!(text.ends_with("\nmillrace_callback_destinations{state=\"failing\"} 1\n"), "{text}");
        assert!(destinations(&[]).contains("{state=\"disabled\"} 0\n"), "a gauge that was measured is present");
    }
}
