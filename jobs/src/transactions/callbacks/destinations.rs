//! The destinations of this process: their configuration, and whether they may be called now.

use std::{collections::BTreeMap, fmt, time::Duration};

use url::Url;

use super::{
    config::{Config, DestinationConfig},
    limits::{Call, Limit, WorkerCalls},
    model::label,
};
use crate::transactions::processor::excerpt::Secrets;
use queue::retry::Backoff;
use runtime::clients::breaker::Breaker;

/// Failed calls in a row that open the circuit breaker.
const FAILURES: u32 = 5;
/// How often one call probes the receiver then. Longer than the longest call.
const PROBE_PAUSE: Duration = Duration::from_secs(15);
/// How long a callback waits whose receiver is down, after the time of the next probe. The ceiling doubles with each claim of its
/// job, so that a backlog of a destination that is down for hours costs few claims.
const DOWN: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(3600) };

/// A destination and its limits. All callbacks of a process share it.
pub(super) struct Destination {
    pub config: DestinationConfig,
    /// What no error may show.
    pub secrets: Secrets,
    limit: Limit,
    breaker: Breaker,
}

/// Why a destination is not called now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// As many calls as it may have are running. The turn of another callback comes after this time.
    NoCallFree(Duration),
    /// Its last calls have failed. The next one may probe it after this time.
    Failing(Duration),
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCallFree(_) => "as many callbacks to its destination are running in this worker as may",
            Self::Failing(_) => "its destination is down: one callback at a time probes it",
        })
    }
}

impl Busy {
    /// How long a callback waits until it is tried again. `claims` counts the claims of its job.
    pub(super) fn wait(self, claims: u32) -> Duration {
        match self {
            Self::NoCallFree(turn) => turn,
            Self::Failing(left) => left + DOWN.wait(claims),
        }
    }
}

impl Destination {
    fn new(config: DestinationConfig, worker: &WorkerCalls) -> Self {
        let secrets = Secrets::of(config.url.expose());
        let breaker = Breaker::with_threshold(FAILURES, PROBE_PAUSE);
        Self { config, secrets, limit: Limit::new(worker), breaker }
    }

    /// Begins a call, without waiting for another one to end.
    ///
    /// # Errors
    /// Why the destination is not called now.
    pub(super) fn begin_call(&self) -> Result<Call<'_>, Busy> {
        let call = self.limit.begin().map_err(Busy::NoCallFree)?;
        self.breaker.acquire().map_err(Busy::Failing)?;
        Ok(call)
    }

    /// Ends a call, and records whether the receiver responded and is not overloaded.
    pub(super) fn end_call(&self, call: Call<'_>, is_up: bool) {
        call.end(is_up);
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
        assert_eq!(destination.begin_call().err(), Some(Busy::Failing(PROBE_PAUSE)));
        tokio::time::advance(PROBE_PAUSE).await;
        let probe = destination.begin_call().expect("a probe");
        assert_eq!(destination.begin_call().err(), Some(Busy::Failing(PROBE_PAUSE)));
        destination.end_call(probe, true);
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
            assert_eq!(destination.begin_call().err(), Some(Busy::Failing(PROBE_PAUSE)));
        }
        let calls: Vec<_> = (0..INITIAL).map(|_| destination.limit.begin().expect("a free call")).collect();
        assert!(matches!(destination.begin_call().err(), Some(Busy::NoCallFree(_))));
        drop(calls);
    }

    #[test]
    fn waits_for_a_receiver_that_is_down_grow_with_the_claims_up_to_an_hour() {
        let left = Duration::from_secs(7);
        for (claims, most) in [(1, 0.2), (2, 0.4), (5, 3.2), (30, 3600.0)] {
            let most = Duration::from_secs_f64(most);
            for _ in 0..100 {
                assert_eq!(Busy::NoCallFree(left).wait(claims), left, "{claims}");
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
