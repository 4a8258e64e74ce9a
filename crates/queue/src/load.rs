//! Back-pressure: estimates how long a new call of a [`Batch`](super::batch::Batch) would wait, and refuses it if that is too
//! long.
//!
//! The estimate is the number of batches that are written before it, times the time of a batch. So it is right both for
//! single calls and for full batches, whose calls cost far less each.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use runtime::error::Error;

/// A refused caller is never asked to wait longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// A refused caller waits at least this long: HTTP has whole seconds.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The weight of the newest batch in the average time of a batch.
const NEWEST: f64 = 0.25;

/// The load of a batch.
pub(crate) struct Load {
    /// Calls that are written at the same time, at most.
    at_once: usize,
    max_wait: Duration,
    state: Mutex<State>,
}

struct State {
    /// The average time of a batch, in seconds.
    batch_s: f64,
    /// The refused calls come back one after the other, each at a time when it can be written. This is the next such time.
    next_return: Instant,
}

impl Load {
    pub(crate) fn new(at_once: usize, max_wait: Duration) -> Self {
        let state = State { batch_s: 0.0, next_return: Instant::now() };
        Self { at_once: at_once.max(1), max_wait, state: Mutex::new(state) }
    }

    /// Records the time of a batch.
    pub(crate) fn record(&self, time: Duration) {
        let mut state = self.state();
        state.batch_s += NEWEST * (time.as_secs_f64() - state.batch_s);
    }

    /// Refuses a call that would wait too long behind `waiting` others.
    ///
    /// # Errors
    /// [`Error::Overloaded`] with the time after which there is room for it.
    pub(crate) fn admit(&self, waiting: usize) -> Result<(), Error> {
        self.admit_at(waiting, Instant::now())
    }

    fn admit_at(&self, waiting: usize, now: Instant) -> Result<(), Error> {
        // Less than one full round waits at most for the batches under way.
        if waiting < self.at_once {
            return Ok(());
        }
        let mut state = self.state();
        let rounds = waiting / self.at_once + 1;
        if state.batch_s * rounds as f64 <= self.max_wait.as_secs_f64() {
            return Ok(());
        }
        let per_call = Duration::try_from_secs_f64(state.batch_s / self.at_once as f64).unwrap_or_default();
        let latest = now + MAX_RETRY_AFTER;
        state.next_return = (state.next_return.max(now + MIN_RETRY_AFTER) + per_call).min(latest);
        Err(Error::Overloaded(state.next_return - now))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(batch: Duration) -> Load {
        let load = Load::new(1000, Duration::from_millis(500));
        for _ in 0..50 {
            load.record(batch);
        }
        load
    }

    #[test]
    fn a_call_is_refused_when_it_would_wait_too_long() {
        let fast = load(Duration::from_millis(20));
        assert!(fast.admit(19_999).is_ok(), "20 rounds of 20 ms");
        let slow = load(Duration::from_millis(200));
        assert!(slow.admit(999).is_ok() && slow.admit(1_999).is_ok(), "two rounds of 200 ms");
        assert!(matches!(slow.admit(2_000), Err(Error::Overloaded(_))), "three rounds");
    }

    #[test]
    fn a_burst_after_single_calls_is_admitted() {
        let load = load(Duration::from_millis(1));
        assert!(load.admit(15_000).is_ok());
    }

    #[test]
    fn refused_calls_return_one_after_the_other() {
        // 1,000 calls in 0.5 s.
        let (load, now) = (load(Duration::from_millis(500)), Instant::now());
        let retry_after = |now| match load.admit_at(5_000, now) {
            Err(Error::Overloaded(after)) => after.as_secs_f64(),
            other => panic!("{other:?}"),
        };
        let first = retry_after(now);
        assert!((1.0..1.01).contains(&first), "{first}");
        let last = (0..3_999).fold(0.0, |_, _| retry_after(now));
        assert!((2.9..3.1).contains(&last), "4,000 calls take 2 s: {last}");
        let later = retry_after(now + Duration::from_secs(30));
        assert!((1.0..1.01).contains(&later), "those have come back by then: {later}");
        let most = (0..200_000).fold(0.0, |_, _| retry_after(now));
        assert!(most <= 60.0, "{most}");
    }
}
