//! A circuit breaker: after a failure nobody tries again for a while, and then one at a time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether something that failed may be tried.
#[derive(Debug)]
pub struct Breaker {
    begun: Instant,
    /// Milliseconds since `begun` until which nobody tries; 0 when all is well.
    until: AtomicU64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { begun: Instant::now(), until: AtomicU64::new(0) }
    }
}

impl Breaker {
    /// Whether the caller may try now. After the pause, only one of those who ask may, and the pause begins anew for the
    /// others.
    pub fn lets_through(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        if until == 0 {
            return true;
        }
        self.now() >= until
            && self.until.compare_exchange(until, self.next(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// It went well.
    pub fn succeeded(&self) {
        if self.until.load(Ordering::Acquire) != 0 {
            self.until.store(0, Ordering::Release);
        }
    }

    /// It failed; answers whether it had been well before, which is worth a line in the log.
    pub fn failed(&self) -> bool {
        self.until.swap(self.next(), Ordering::AcqRel) == 0
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn next(&self) -> u64 {
        self.now().saturating_add(PAUSE.as_millis() as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_one_try_after_the_pause() {
        let breaker = Breaker::default();
        assert!(breaker.lets_through() && breaker.lets_through());
        assert!(breaker.failed());
        assert!(!breaker.failed(), "said once");
        assert!(!breaker.lets_through());
        // As if the pause were over.
        let late = Breaker { begun: Instant::now() - 2 * PAUSE, until: AtomicU64::new(PAUSE.as_millis() as u64) };
        assert!(late.lets_through());
        assert!(!late.lets_through(), "one at a time");
        late.succeeded();
        assert!(late.lets_through() && late.lets_through());
    }
}
