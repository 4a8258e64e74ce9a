//! How often a source may be asked: a token bucket that is waited for, briefly.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Longer nobody waits for a turn; a job comes back later instead, and a reader is shown what is stored.
const PATIENCE: Duration = Duration::from_secs(4);

/// Calls that a source grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// One call in this time, for ever.
    pub every: Duration,
    /// So many at once after a quiet time.
    pub burst: u32,
}

/// The calls that one process has left.
#[derive(Debug)]
pub struct Budget {
    allowance: Allowance,
    /// When the bucket is full again: one number holds it all.
    full_at: Mutex<Option<Instant>>,
}

impl Budget {
    /// A full one.
    pub fn new(allowance: Allowance) -> Self {
        Self { allowance, full_at: Mutex::default() }
    }

    /// Waits for a turn; turns come in the order of the calls.
    ///
    /// # Errors
    /// How long it would take, when that is too long to wait here.
    pub async fn turn(&self) -> Result<(), Duration> {
        let at = self.reserve()?;
        tokio::time::sleep_until(at).await;
        Ok(())
    }

    fn reserve(&self) -> Result<Instant, Duration> {
        let Allowance { every, burst } = self.allowance;
        let now = Instant::now();
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let after = full_at.map_or(now, |at| at.max(now)) + every;
        let wait = after.saturating_duration_since(now).saturating_sub(every.saturating_mul(burst));
        if wait > PATIENCE {
            return Err(wait);
        }
        *full_at = Some(after);
        Ok(now + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_free_and_then_turns_come_at_the_rate() {
        let budget = Budget::new(Allowance { every: Duration::from_secs(1), burst: 3 });
        let start = Instant::now();
        for expected in [0, 0, 0, 1, 2, 3] {
            budget.turn().await.expect("a turn");
            assert_eq!(start.elapsed().as_secs(), expected);
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..3 {
            budget.turn().await.expect("a turn");
        }
        assert_eq!(start.elapsed(), Duration::ZERO, "no more than the burst is saved up, and all of it");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long_and_who_does_not_wait_takes_nothing() {
        let budget = Budget::new(Allowance { every: Duration::from_secs(3), burst: 1 });
        budget.turn().await.expect("the first");
        let waiting = budget.reserve().expect("the second, after three seconds");
        assert_eq!((waiting - Instant::now()).as_secs(), 3);
        for _ in 0..100 {
            assert_eq!(budget.turn().await, Err(Duration::from_secs(6)));
        }
    }
}
