//! A circuit breaker: while a server is down, only one caller per pause waits for its time-out.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::mutex::lock;

/// Records whether calls of a server succeed.
#[derive(Debug)]
pub struct Breaker {
    /// How long calls are refused after a failure. Then one caller probes the server for all.
    pause: Duration,
    /// Failures in a row that open the breaker.
    threshold: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Set while the breaker is open: when the next probe may start.
    open_until: Option<Instant>,
}

/// The permission for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// The breaker is closed.
    Full,
    /// The result of this call opens or closes the breaker.
    Probe,
}

impl Breaker {
    /// Creates a closed breaker, which allows every call. One failure opens it.
    pub fn new(pause: Duration) -> Self {
        Self::with_threshold(1, pause)
    }

    /// Creates a closed breaker. This many failures in a row open it.
    pub fn with_threshold(threshold: u32, pause: Duration) -> Self {
        Self { pause, threshold, state: Mutex::default() }
    }

    /// Requests permission for a call. While the breaker is open, one caller per pause gets it.
    ///
    /// # Errors
    /// How long calls are still refused.
    pub fn acquire(&self) -> Result<Permit, Duration> {
        let (mut state, now) = (lock(&self.state), Instant::now());
        match state.open_until {
            None => Ok(Permit::Full),
            Some(until) if now < until => Err(until - now),
            Some(_) => {
                state.open_until = Some(now + self.pause);
                Ok(Permit::Probe)
            }
        }
    }

    /// Whether this caller may call the server, with or without a probe.
    pub fn allows(&self) -> bool {
        self.acquire().is_ok()
    }

    /// Records a success. Returns `true` when the breaker was open, so that the recovery is logged once.
    pub fn record_success(&self) -> bool {
        std::mem::take(&mut *lock(&self.state)).open_until.is_some()
    }

    /// Records a failure. Returns `true` when this opens the breaker, so that the outage is logged once.
    pub fn record_failure(&self) -> bool {
        let mut state = lock(&self.state);
        state.failures = state.failures.saturating_add(1);
        state.failures >= self.threshold && state.open_until.replace(Instant::now() + self.pause).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn one_caller_per_pause_probes() {
        let breaker = Breaker::new(PAUSE);
        assert!(breaker.allows() && breaker.allows());
        assert!(breaker.record_failure() && !breaker.record_failure(), "only the first failure opens it");
        assert!(!breaker.allows());
        tokio::time::advance(PAUSE).await;
        assert!(breaker.allows(), "one caller probes");
        assert!(!breaker.allows(), "only one caller probes");
        assert!(breaker.record_success() && breaker.allows() && breaker.allows());
        assert!(!breaker.record_success(), "only the first success closes it");
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_one_call_probes() {
        let breaker = Breaker::with_threshold(3, PAUSE);
        for _ in 0..2 {
            assert!(!breaker.record_failure() && !breaker.record_failure());
            assert!(!breaker.record_success());
        }
        assert!(
            !breaker.record_failure() && !breaker.record_failure() && breaker.record_failure(),
            "the third failure in a row opens it"
        );
        assert_eq!(breaker.acquire(), Err(PAUSE));
        tokio::time::advance(PAUSE).await;
        assert_eq!(breaker.acquire(), Ok(Permit::Probe));
        assert!(breaker.acquire().is_err(), "one probe at a time");
        assert!(!breaker.record_failure(), "it was open already");
        tokio::time::advance(PAUSE / 2).await;
        assert!(breaker.acquire().is_err(), "open for a whole pause again");
        tokio::time::advance(PAUSE / 2).await;
        assert_eq!(breaker.acquire(), Ok(Permit::Probe));
        assert!(breaker.record_success());
        assert_eq!((breaker.acquire(), breaker.acquire()), (Ok(Permit::Full), Ok(Permit::Full)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_probe_is_followed_by_another() {
        let breaker = Breaker::with_threshold(3, PAUSE);
        assert_eq!([(); 3].map(|()| breaker.record_failure()), [false, false, true]);
        for _ in 0..3 {
            tokio::time::advance(PAUSE).await;
            assert_eq!(breaker.acquire(), Ok(Permit::Probe));
        }
    }
}
