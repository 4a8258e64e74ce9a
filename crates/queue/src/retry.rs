//! The backoff between attempts: exponential, with full jitter.
//!
//! This file alone uses the crate `backoff`. Full jitter draws uniformly from zero to the exponential value, which
//! spreads retries best: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff as _};

/// The limits of the backoff. The ceiling doubles from `base` to `cap` with each failure; the delay is drawn below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub base: Duration,
    pub cap: Duration,
}

impl Default for Backoff {
    /// From 1 s to 10 min.
    fn default() -> Self {
        Self { base: Duration::from_secs(1), cap: Duration::from_secs(600) }
    }
}

impl Backoff {
    /// For our own database calls and listeners: short, but without a retry storm.
    pub(crate) const DATABASE: Self = Self { base: Duration::from_millis(50), cap: Duration::from_secs(2) };

    /// Draws the delay after the `failures`-th consecutive failure, counted from 1.
    pub fn wait(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.cap);
        // A factor of 1 around the middle covers the whole range from zero to the ceiling.
        let mut draw = ExponentialBackoff {
            current_interval: ceiling / 2,
            randomization_factor: 1.0,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        draw.next_backoff().unwrap_or(ceiling).min(ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap_and_uses_the_whole_range_below() {
        let backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };
        for (failures, ceiling) in [(1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (1000, 60.0), (u32::MAX, 60.0)] {
            let waits: Vec<f64> = (0..1000).map(|_| backoff.wait(failures).as_secs_f64() / ceiling).collect();
            assert!(waits.iter().all(|wait| (0.0..=1.0).contains(wait)), "{failures}");
            // The chance that 1,000 draws miss a tenth of the range is 1e-46.
            assert!(waits.iter().any(|wait| *wait < 0.1) && waits.iter().any(|wait| *wait > 0.9), "{failures}");
        }
    }
}
