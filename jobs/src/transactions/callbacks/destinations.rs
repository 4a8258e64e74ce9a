//! The destinations of this process: their configuration, and limits that keep a slow receiver from delaying the others.

use std::{collections::BTreeMap, fmt, time::Duration};

use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use super::{
    config::{Config, DestinationConfig},
    model::label,
};
use crate::transactions::processor::excerpt::Secrets;
use queue::retry::Backoff;
use runtime::clients::breaker::Breaker;

/// Calls of one destination at once in one worker, of the 256 of all destinations together.
const CALLS: usize = 16;
/// Failed calls in a row that open the circuit breaker.
const FAILURES: u32 = 5;
/// How often one call probes the receiver then. Longer than the longest call.
const PROBE_PAUSE: Duration = Duration::from_secs(15);
/// How long a callback waits that cannot be sent now. The ceiling doubles with each claim of its job, so that a backlog of a
/// destination that is down for hours costs few claims.
const BUSY: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(3600) };

/// A destination and its limits. All callbacks of a process share it.
pub(super) struct Destination {
    pub config: DestinationConfig,
    /// What no error may show.
    pub secrets: Secrets,
    calls: Semaphore,
    breaker: Breaker,
}

/// Why a destination is not called now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// As many calls as it may have are running.
    NoCallFree,
    /// Its last calls have failed. The next one may probe it after this time.
    Failing(Duration),
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCallFree => write!(f, "{CALLS} callbacks of this worker to its destination are running"),
            Self::Failing(_) => f.write_str("its destination is down: one callback at a time probes it"),
        }
    }
}

impl Busy {
    /// How long a callback waits until it is tried again. `claims` counts the claims of its job.
    pub(super) fn wait(self, claims: u32) -> Duration {
        let least = match self {
            Self::NoCallFree => Duration::ZERO,
            Self::Failing(left) => left,
        };
        least + BUSY.wait(claims)
    }
}

impl Destination {
    fn new(config: DestinationConfig) -> Self {
        let secrets = Secrets::of(config.url.expose());
        let breaker = Breaker::with_threshold(FAILURES, PROBE_PAUSE);
        Self { config, secrets, calls: Semaphore::new(CALLS), breaker }
    }

    /// Requests permission for a call, without waiting. The call ends when the permit is dropped.
    ///
    /// # Errors
    /// Why the destination is not called now.
    pub(super) fn admit(&self) -> Result<SemaphorePermit<'_>, Busy> {
        let permit = self.calls.try_acquire().map_err(|_| Busy::NoCallFree)?;
        self.breaker.acquire().map_err(Busy::Failing)?;
        Ok(permit)
    }

    /// Records whether the receiver responded, and is not overloaded.
    pub(super) fn record(&self, is_up: bool) {
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
        let destinations = config.destinations.iter().cloned();
        Self(destinations.map(|one| (one.name.clone(), Destination::new(one))).collect())
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
}

#[cfg(test)]
mod tests {
    use runtime::config::EnvReader;

    use super::*;

    fn destination(url: &str) -> Destination {
        let secret = ("CALLBACK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let mut vars = EnvReader::from_pairs(&[("CALLBACK_URL", url), secret]);
        let mut config = Config::read(&mut vars);
        assert!(vars.finish(()).is_ok(), "{url}");
        Destination::new(config.destinations.remove(0))
    }

    #[tokio::test(start_paused = true)]
    async fn a_destination_has_16_calls_at_once() {
        let destination = destination("https://receiver.example.com/hook");
        let calls: Vec<_> = (0..CALLS).map(|_| destination.admit().expect("a free call")).collect();
        assert_eq!(destination.admit().err(), Some(Busy::NoCallFree));
        drop(calls);
        assert!(destination.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_leave_one_probe_every_15_s() {
        let destination = destination("https://receiver.example.com/hook");
        for is_up in [false, false, false, false, true, false, false, false, false] {
            destination.record(is_up);
            assert!(destination.admit().is_ok());
        }
        destination.record(false);
        assert_eq!(destination.admit().err(), Some(Busy::Failing(PROBE_PAUSE)));
        tokio::time::advance(PROBE_PAUSE).await;
        assert!(destination.admit().is_ok(), "a probe");
        assert_eq!(destination.admit().err(), Some(Busy::Failing(PROBE_PAUSE)));
        destination.record(true);
        assert!(destination.admit().is_ok() && destination.admit().is_ok());
    }

    #[test]
    fn waits_grow_with_the_claims_up_to_an_hour() {
        let left = Duration::from_secs(7);
        for (claims, most) in [(1, 0.2), (2, 0.4), (5, 3.2), (30, 3600.0)] {
            let most = Duration::from_secs_f64(most);
            for _ in 0..100 {
                assert!(Busy::NoCallFree.wait(claims) <= most, "{claims}");
                let wait = Busy::Failing(left).wait(claims);
                assert!(wait >= left && wait <= left + most, "{claims}");
            }
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
