//! The rate limiter of a provider: a token bucket. Callers wait for a token, at most 4 s.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use runtime::mutex::lock;

/// The longest wait for a token. For a longer wait a job is retried later, and a reader gets what is stored.
const MAX_WAIT: Duration = Duration::from_secs(4);

/// The rate limit of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateLimit {
    /// The average time between calls.
    pub every: Duration,
    /// The calls that may be made at once after an idle time.
    pub burst: u32,
}

/// The tokens of one process.
#[derive(Debug)]
pub(super) struct RateLimiter {
    limit: RateLimit,
    /// When the bucket is full again. This one time is the whole state.
    full_at: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// Creates a full bucket.
    pub(super) fn new(limit: RateLimit) -> Self {
        Self { limit, full_at: Mutex::default() }
    }

    /// Waits for a token. Tokens are given in the order of the calls.
    ///
    /// # Errors
    /// The wait that would be necessary, when it is longer than [`MAX_WAIT`].
    pub(super) async fn acquire(&self) -> Result<(), Duration> {
        let at = self.reserve()?;
        tokio::time::sleep_until(at).await;
        Ok(())
    }

    fn reserve(&self) -> Result<Instant, Duration> {
        let RateLimit { every, burst } = self.limit;
        let now = Instant::now();
        let mut full_at = lock(&self.full_at);
        let after = full_at.map_or(now, |at| at.max(now)) + every;
        let wait = after.saturating_duration_since(now).saturating_sub(every.saturating_mul(burst));
        if wait > MAX_WAIT {
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
    async fn a_burst_is_immediate_and_then_calls_are_paced() {
        let limiter = RateLimiter::new(RateLimit { every: Duration::from_secs(1), burst: 3 });
        let start = Instant::now();
        for expected in [0, 0, 0, 1, 2, 3] {
            limiter.acquire().await.expect("a token");
            assert_eq!(start.elapsed().as_secs(), expected);
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..3 {
            limiter.acquire().await.expect("a token");
        }
        assert_eq!(start.elapsed(), Duration::ZERO, "idle time saves up exactly one burst");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_would_wait_too_long_takes_no_token() {
        let limiter = RateLimiter::new(RateLimit { every: Duration::from_secs(3), burst: 1 });
        limiter.acquire().await.expect("the first");
        let waiting = limiter.reserve().expect("the second, after three seconds");
        assert_eq!((waiting - Instant::now()).as_secs(), 3);
        for _ in 0..100 {
            assert_eq!(limiter.acquire().await, Err(Duration::from_secs(6)));
        }
    }
}
