//! The destinations of this process: their configuration, and whether they may be called now.

use std::{collections::BTreeMap, fmt, sync::Mutex, time::Duration};

use tokio::time::Instant;
use url::Url;

use super::{
    config::{Config, DestinationConfig},
    limits::{Call, Limit, WorkerCalls},
    model::label,
};
use crate::transactions::processor::excerpt::Secrets;
use queue::retry::Backoff;
use runtime::{clients::breaker::Breaker, mutex::lock};

/// Failed calls in a row that open the circuit breaker.
const FAILURES: u32 = 5;
/// How often one call probes the receiver then. Longer than the longest call.
const PROBE_PAUSE: Duration = Duration::from_secs(15);
/// The range of the ceiling of [`random_wait`].
const LEAST_CEILING: Duration = Duration::from_millis(200);
const HIGHEST_CEILING: Duration = Duration::from_secs(3600);

/// A destination and its limits. All callbacks of a process share it.
pub(super) struct Destination {
    pub config: DestinationConfig,
    /// What no error may show.
    pub secrets: Secrets,
    limit: Limit,
    breaker: Breaker,
    /// The first failure since the last success.
    failing_since: Mutex<Option<Instant>>,
}

/// Why a destination is not called now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// As many calls as it may have are running. The turn of another callback comes after this time.
    NoCallFree(Duration),
    /// All its calls have failed for the time `outage`. The next one may probe it after `left`.
    Failing { left: Duration, outage: Duration },
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCallFree(_) => "as many callbacks to its destination are running in this worker as may",
            Self::Failing { .. } => "its destination is down: one callback at a time probes it",
        })
    }
}

impl Busy {
    /// How long a callback waits until it is tried again, so long after its settlement.
    ///
    /// No request was sent, so earlier waits do not count. While its receiver is down, the ceiling is the time for which both
    /// the callback and the outage exist: a backlog of a destination that is down for hours costs few claims, and neither a new
    /// callback nor one that has stood in line for long waits much longer than the next probe of an outage that begins.
    pub(super) fn wait(self, age: Duration) -> Duration {
        match self {
            Self::NoCallFree(turn) => turn,
            Self::Failing { left, outage } => left + random_wait(age.min(outage)),
        }
    }
}

/// Draws a wait below this ceiling, which counts as 0.2 s if it is less and as an hour if it is more.
pub(super) fn random_wait(ceiling: Duration) -> Duration {
    let ceiling = ceiling.clamp(LEAST_CEILING, HIGHEST_CEILING);
    Backoff { base: ceiling, cap: ceiling }.wait(1)
}

impl Destination {
    fn new(config: DestinationConfig, worker: &WorkerCalls) -> Self {
        let secrets = Secrets::of(config.url.expose());
        let breaker = Breaker::with_threshold(FAILURES, PROBE_PAUSE);
        Self { config, secrets, limit: Limit::new(worker), breaker, failing_since: Mutex::new(None) }
    }

    /// Begins a call, without waiting for another one to end.
    ///
    /// # Errors
    /// Why the destination is not called now.
    pub(super) fn begin_call(&self) -> Result<Call<'_>, Busy> {
        let call = self.limit.begin().map_err(Busy::NoCallFree)?;
        self.breaker.acquire().map_err(|left| Busy::Failing { left, outage: self.outage() })?;
        Ok(call)
    }

    /// How long all calls have failed.
    fn outage(&self) -> Duration {
        lock(&self.failing_since).map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Ends a call, and records whether the receiver responded and is not overloaded.
    pub(super) fn end_call(&self, call: Call<'_>, is_up: bool) {
        call.end(is_up);
        {
            let mut failing_since = lock(&self.failing_since);
            *failing_since = if is_up { None } else { failing_since.or_else(|| Some(Instant::now())) };
        }
        let destination = label(&self.config.name);
        if is_up {
            if self.breaker.record_success() {
                tracing::info!(destination, "the receiver of callbacks responds again");
            }
        } else if self.breaker.record_failure() {
            let probe_every_s = PROBE_PAUSE.as_secs();
            tracing::warn!(
                destination,
                probe_every_s,
                "the receiver of callbacks is down; one call at a time probes it"
            );
        }
    }

    /// Its URL for operators: without query, and without parts of the path that may be tokens.
    pub(super) fn shown_url(&self) -> String {
        let mut url: Url = self.config.url.expose().clone();
        url.set_query(None);
        url.set_fragment(None);
        self.secrets.redact(url.as_str())
    }
}

/// The destinations by their names.
pub(super) struct Destinations(BTreeMap<String, Destination>);

impl Destinations {
    pub(super) fn new(config: &Config) -> Self {
        let worker = WorkerCalls::default();
        let destinations = config.destinations.iter().cloned();
        Self(destinations.map(|one| (one.name.clone(), Destination::new(one, &worker))).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Destination> {
        self.0.get(name)
    }

    /// All names, in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Whether there are several, which then share the slots of the queue.
    pub(super) fn are_several(&self) -> bool {
        self.0.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use runtime::config::EnvReader;

    use super::{super::limits::INITIAL, *};

    fn destination(url: &str) -> Destination {
        let secret = ("CALLBACK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let mut vars = EnvReader::from_pairs(&[("CALLBACK_URL", url), secret]);
        let mut config = Config::read(&mut vars);
        assert!(vars.finish(()).is_ok(), "{url}");
        Destination::new(config.destinations.remove(0), &WorkerCalls::default())
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_leave_one_probe_every_15_s() {
        let destination = destination("https://receiver.example.com/hook");
        for is_up in [false, false, false, false, true, false, false, false, false, false] {
            destination.end_call(destination.begin_call().expect("a free call"), is_up);
        }
        let failing = |outage| Some(Busy::Failing { left: PROBE_PAUSE, outage });
        assert_eq!(destination.begin_call().err(), failing(Duration::ZERO));
        tokio::time::advance(PROBE_PAUSE).await;
        let probe = destination.begin_call().expect("a probe");
        assert_eq!(destination.begin_call().err(), failing(PROBE_PAUSE));
        destination.end_call(probe, false);
        assert_eq!(
            destination.begin_call().err(),
            failing(PROBE_PAUSE),
            "a failed probe does not begin another outage"
        );
        tokio::time::advance(PROBE_PAUSE).await;
        let probe = destination.begin_call().expect("another probe");
        destination.end_call(probe, true);
        assert_eq!(destination.outage(), Duration::ZERO);
        assert!(destination.begin_call().is_ok() && destination.begin_call().is_ok());
    }

    /// A call that the breaker refuses takes no place of another one.
    #[tokio::test(start_paused = true)]
    async fn a_refused_call_has_ended() {
        let destination = destination("https://receiver.example.com/hook");
        for _ in 0..FAILURES {
            destination.end_call(destination.begin_call().expect("a free call"), false);
        }
        for _ in 0..1000 {
            let failing = Busy::Failing { left: PROBE_PAUSE, outage: Duration::ZERO };
            assert_eq!(destination.begin_call().err(), Some(failing));
        }
        let calls: Vec<_> = (0..INITIAL).map(|_| destination.limit.begin().expect("a free call")).collect();
        assert!(matches!(destination.begin_call().err(), Some(Busy::NoCallFree(_))));
        drop(calls);
    }

    #[test]
    fn waits_for_a_receiver_that_is_down_grow_with_the_outage_and_the_callback_up_to_an_hour() {
        let left = Duration::from_secs(7);
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        for (age, outage, most, case) in [
            (Duration::ZERO, Duration::ZERO, 0.2, "both are new"),
            (hours(48), Duration::ZERO, 0.2, "it has stood in line for two days, and the outage begins"),
            (Duration::from_secs(1), hours(48), 1.0, "it is new, and the outage is old"),
            (Duration::from_secs(60), Duration::from_secs(30), 30.0, "both take a while"),
            (hours(48), hours(24), 3600.0, "both are old"),
        ] {
            let most = Duration::from_secs_f64(most);
            let waits: Vec<Duration> = (0..1000).map(|_| Busy::Failing { left, outage }.wait(age)).collect();
            assert!(waits.iter().all(|wait| *wait >= left && *wait <= left + most), "{case}");
            // The chance that 1,000 draws miss the upper half of the range is 1e-301.
            assert!(waits.iter().any(|wait| *wait > left + most / 2), "{case}");
            assert_eq!(Busy::NoCallFree(left).wait(age), left, "{case}");
        }
    }

    #[test]
    fn operators_see_no_token_of_a_url() {
        for (url, shown) in [
            ("https://r.example/hook?key=secret-key#part", "https://r.example/hook"),
            ("acme:https://r.example:8443/services/T0123456789abcdef/x", "https://r.example:8443/services/***/x"),
        ] {
            assert_eq!(destination(url).shown_url(), shown);
        }
    }
}
