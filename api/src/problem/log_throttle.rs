//! Log throttle for repeated failures: logs a cause once in 10 s and counts its repeats.
//!
//! While a disk is full, every request fails for the same reason. One line per request could fill the next disk.

use std::time::{Duration, Instant};

/// A cause is logged once in this time.
const WINDOW: Duration = Duration::from_secs(10);
/// The number of causes that are remembered; a new one replaces the one that was logged longest ago.
const MAX_CAUSES: usize = 8;

/// The causes that were logged most recently.
#[derive(Debug, Default)]
pub(super) struct LogThrottle(Vec<LoggedCause>);

#[derive(Debug)]
struct LoggedCause {
    cause: String,
    logged_at: Instant,
    suppressed: u64,
}

impl LogThrottle {
    /// A throttle without causes.
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Registers a failure. Returns `None` if its log line is suppressed, else the number of lines suppressed before it.
    pub(super) fn register(&mut self, cause: &str, now: Instant) -> Option<u64> {
        match self.0.iter_mut().find(|known| known.cause == cause) {
            Some(known) if now.duration_since(known.logged_at) < WINDOW => {
                known.suppressed += 1;
                None
            }
            Some(known) => {
                known.logged_at = now;
                Some(std::mem::take(&mut known.suppressed))
            }
            None => {
                if self.0.len() == MAX_CAUSES {
                    let oldest = self.0.iter().enumerate().min_by_key(|(_, known)| known.logged_at);
                    if let Some((oldest, _)) = oldest {
                        self.0.swap_remove(oldest);
                    }
                }
                self.0.push(LoggedCause { cause: cause.to_owned(), logged_at: now, suppressed: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_of_a_cause_are_counted_and_logged_once_per_window() {
        let (mut throttle, start) = (LogThrottle::new(), Instant::now());
        let logged: Vec<u64> = (0..12_000u64)
            .filter_map(|n| throttle.register("disk full", start + Duration::from_millis(n * 2)))
            .collect();
        assert_eq!(logged, [0, 4999, 4999], "24 s");
        assert_eq!(throttle.register("refused", start), Some(0), "another cause has its own line");
        for n in 0..100 {
            assert_eq!(throttle.register(&format!("cause {n}"), start + Duration::from_secs(60 + n)), Some(0));
        }
        assert_eq!(throttle.0.len(), MAX_CAUSES);
    }
}
