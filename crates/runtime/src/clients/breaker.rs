//! A circuit breaker: while a server is down, only one caller per pause waits for its time-out.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Records whether calls of a server succeed.
#[derive(Debug)]
pub struct Breaker {
    /// How long calls are refused after a failure. Then one caller probes the server for all.
    pause: Duration,
    open_until: Mutex<Option<Instant>>,
}

impl Breaker {
    /// Creates a closed breaker, which allows every call.
    pub fn new(pause: Duration) -> Self {
        Self { pause, open_until: Mutex::default() }
    }

    fn open_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.open_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this caller may call the server. After a failure one caller per pause may.
    pub fn allows(&self) -> bool {
        let mut open_until = self.open_until();
        match *open_until {
            None => true,
            Some(until) if Instant::now() < until => false,
            Some(_) => {
                *open_until = Some(Instant::now() + self.pause);
                true
            }
        }
    }

    /// Records a success. Returns `true` when the breaker was open, so that the recovery is logged once.
    pub fn record_success(&self) -> bool {
        self.open_until().take().is_some()
    }

    /// Records a failure. Returns `true` when this opens the breaker, so that the outage is logged once.
    pub fn record_failure(&self) -> bool {
        self.open_until().replace(Instant::now() + self.pause).is_none()
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
}
