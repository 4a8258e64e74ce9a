//! The circuit breaker of a provider: no calls while the provider has paused us, one probe per pause while it keeps
//! failing.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::Gauge;
use tokio::time::Instant;

/// Failed calls in a row, each with all its attempts, that open the breaker.
const FAILURES: u32 = 3;
/// How often one call probes the provider then. Longer than the longest call.
const PAUSE: Duration = Duration::from_secs(30);

/// The state of the breaker.
pub struct CircuitBreaker {
    state: Mutex<State>,
    /// 1 while the breaker is open.
    gauge: Gauge,
}

#[derive(Default)]
struct State {
    failures: u32,
    /// Set while the breaker is open: when the next probe may start.
    open_until: Option<Instant>,
    /// The pause that the provider asked for, or its ban, and the reason.
    paused_until: Option<(Instant, String)>,
}

/// The permission for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// All attempts.
    Full,
    /// One attempt, whose result opens or closes the breaker.
    Probe,
}

/// The call is rejected; it may be made after this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub after: Duration,
    pub reason: String,
}

impl CircuitBreaker {
    /// Creates a closed breaker.
    pub fn new(gauge: Gauge) -> Self {
        Self { state: Mutex::default(), gauge }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests permission for a call.
    pub fn acquire(&self) -> Result<Permit, Rejected> {
        self.check_pause()?;
        let mut state = self.state();
        let now = Instant::now();
        match state.open_until {
            None => Ok(Permit::Full),
            Some(until) if now < until => Err(Rejected { after: until - now, reason: "it keeps failing".into() }),
            Some(_) => {
                state.open_until = Some(now + PAUSE);
                Ok(Permit::Probe)
            }
        }
    }

    /// Fails while a pause lasts.
    pub fn check_pause(&self) -> Result<(), Rejected> {
        let mut state = self.state();
        let now = Instant::now();
        match &state.paused_until {
            Some((until, reason)) if now < *until => Err(Rejected { after: *until - now, reason: reason.clone() }),
            _ => {
                state.paused_until = None;
                Ok(())
            }
        }
    }

    /// Pauses all calls. A pause that ends later stays.
    pub fn pause(&self, time: Duration, reason: &str) {
        let until = Instant::now() + time;
        let mut state = self.state();
        if state.paused_until.as_ref().is_none_or(|(before, _)| *before < until) {
            state.paused_until = Some((until, reason.to_owned()));
        }
    }

    /// Records a response, even if it is a refusal. Returns `true` when this closes the breaker.
    pub fn record_response(&self) -> bool {
        let mut state = self.state();
        state.failures = 0;
        self.gauge.set(0.0);
        state.open_until.take().is_some()
    }

    /// Records a failed call. Returns `true` when this opens the breaker.
    pub fn record_failure(&self) -> bool {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES {
            return false;
        }
        self.gauge.set(1.0);
        state.open_until.replace(Instant::now() + PAUSE).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_one_call_probes() {
        let breaker = CircuitBreaker::new(Gauge::noop());
        for _ in 0..2 {
            assert!(!breaker.record_failure() && !breaker.record_failure());
            assert!(!breaker.record_response());
        }
        assert!(
            !breaker.record_failure() && !breaker.record_failure() && breaker.record_failure(),
            "the third failure in a row opens it"
        );
        assert_eq!(breaker.acquire().map_err(|rejected| rejected.after), Err(PAUSE));
        tokio::time::advance(PAUSE).await;
        assert_eq!(breaker.acquire(), Ok(Permit::Probe));
        assert!(breaker.acquire().is_err(), "one probe at a time");
        assert!(!breaker.record_failure(), "it was open already");
        tokio::time::advance(PAUSE / 2).await;
        assert!(breaker.acquire().is_err(), "open for a whole pause again");
        tokio::time::advance(PAUSE / 2).await;
        assert_eq!(breaker.acquire(), Ok(Permit::Probe));
        assert!(breaker.record_response());
        assert_eq!((breaker.acquire(), breaker.acquire()), (Ok(Permit::Full), Ok(Permit::Full)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_probe_is_followed_by_another() {
        let breaker = CircuitBreaker::new(Gauge::noop());
        assert_eq!([(); 3].map(|()| breaker.record_failure()), [false, false, true]);
        for _ in 0..3 {
            tokio::time::advance(PAUSE).await;
            assert_eq!(breaker.acquire(), Ok(Permit::Probe));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_pause_counts_and_then_all_calls_pass() {
        let breaker = CircuitBreaker::new(Gauge::noop());
        breaker.pause(Duration::from_secs(120), "banned");
        breaker.pause(Duration::from_secs(1), "limited");
        let rejected = breaker.acquire().expect_err("banned");
        assert_eq!((rejected.after.as_secs(), &*rejected.reason), (120, "banned"));
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!((breaker.acquire(), breaker.acquire()), (Ok(Permit::Full), Ok(Permit::Full)));
    }
}
