//! Paces reactions to events: a few at once, then one in each interval.

use std::time::{Duration, Instant};

/// The reactions that may come at once after a calm time. With random events at half the rate of the intervals, hardly one has
/// to wait.
const BURST: u32 = 8;

/// Reactions to events come at once while events are rare, and one in each interval while they are frequent. Events between
/// two reactions share the next one.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    /// When the intervals of all reactions so far are over, one after the other.
    over: Instant,
}

impl Pace {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, over: Instant::now() }
    }

    /// Counts a reaction.
    pub(crate) fn count(&mut self, now: Instant) {
        self.over = self.over.max(now) + self.interval;
    }

    /// The earliest time of the next reaction, at least `now`.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        now + self.over.saturating_duration_since(now).saturating_sub(self.interval * (BURST - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(5);

    #[test]
    fn a_few_reactions_come_at_once_and_more_come_one_in_each_interval() {
        let mut pace = Pace::new(INTERVAL);
        let mut now = Instant::now() + INTERVAL;
        let start = now;
        for _ in 0..BURST {
            assert_eq!(pace.next(now), start);
            pace.count(now);
        }
        for number in 1..100 {
            assert_eq!(pace.next(now), start + INTERVAL * number);
            now = pace.next(now);
            pace.count(now);
        }
    }

    #[test]
    fn a_calm_time_allows_a_burst_again() {
        let mut pace = Pace::new(INTERVAL);
        let start = Instant::now() + INTERVAL;
        (0..BURST).for_each(|_| pace.count(start));
        assert!(pace.next(start) > start);
        let later = start + INTERVAL * BURST;
        assert_eq!(pace.next(later), later);
        (1..BURST).for_each(|_| pace.count(later));
        assert_eq!(pace.next(later), later);
    }
}
