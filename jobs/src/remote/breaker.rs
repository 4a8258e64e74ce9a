//! A circuit breaker: a server that is down costs one caller in each pause its time-out, not every one.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Remembers whether a server answers.
#[derive(Debug)]
pub struct Breaker {
    /// How long nobody asks after a failure; then one caller does, and decides for all.
    pause: Duration,
    open_until: Mutex<Option<Instant>>,
}

impl Breaker {
    /// All is well so far.
    pub fn new(pause: Duration) -> Self {
        Self { pause, open_until: Mutex::default() }
    }

    fn open_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.open_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this caller may ask. After a failure, one caller in each pause may.
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

    /// The server answered. `true` when it had not before.
    pub fn answered(&self) -> bool {
        self.open_until().take().is_some()
    }

    /// The server did not answer. `true` when it had before.
    pub fn failed(&self) -> bool {
        self.open_until().replace(Instant::now() + self.pause).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn one_caller_asks_in_each_pause() {
        let breaker = Breaker::new(PAUSE);
        assert!(breaker.allows() && breaker.allows());
        assert!(breaker.failed() && !breaker.failed(), "news only once");
        assert!(!breaker.allows());
        tokio::time::advance(PAUSE).await;
        assert!(breaker.allows(), "one may ask again");
        assert!(!breaker.allows(), "but only one");
        assert!(breaker.answered() && breaker.allows() && breaker.allows());
        assert!(!breaker.answered(), "news only once");
    }
}
