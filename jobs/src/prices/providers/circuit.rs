//! Whether a source may be asked now: not while it has told us to wait, and hardly while it keeps failing.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::Gauge;
use tokio::time::Instant;

/// So many calls in a row must fail, each with all its tries, until nobody asks any more.
const FAILURES: u32 = 3;
/// Then one call in this time finds out whether the source is back. It is longer than the longest call.
const PAUSE: Duration = Duration::from_secs(30);

/// What is known of a source's health.
pub struct Circuit {
    state: Mutex<State>,
    /// 1 while the source keeps failing.
    gauge: Gauge,
}

#[derive(Default)]
struct State {
    failures: u32,
    /// Set while it keeps failing: when the next one may find out.
    open_until: Option<Instant>,
    /// Its own wish, or its ban, and why.
    paused_until: Option<(Instant, String)>,
}

/// The right to ask, once or several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    Whole,
    /// One try, by which all others are judged.
    Probe,
}

/// The source is not to be asked for this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shut {
    pub after: Duration,
    pub why: String,
}

impl Circuit {
    /// All is well so far.
    pub fn new(gauge: Gauge) -> Self {
        Self { state: Mutex::default(), gauge }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a call.
    pub fn enter(&self) -> Result<Pass, Shut> {
        self.paused()?;
        let mut state = self.state();
        let now = Instant::now();
        match state.open_until {
            None => Ok(Pass::Whole),
            Some(until) if now < until => Err(Shut { after: until - now, why: "it keeps failing".into() }),
            Some(_) => {
                state.open_until = Some(now + PAUSE);
                Ok(Pass::Probe)
            }
        }
    }

    /// Whether somebody has been told to wait since.
    pub fn paused(&self) -> Result<(), Shut> {
        let mut state = self.state();
        let now = Instant::now();
        match &state.paused_until {
            Some((until, why)) if now < *until => Err(Shut { after: *until - now, why: why.clone() }),
            _ => {
                state.paused_until = None;
                Ok(())
            }
        }
    }

    /// Nobody asks for this time; a longer wish stands.
    pub fn pause(&self, time: Duration, why: &str) {
        let until = Instant::now() + time;
        let mut state = self.state();
        if state.paused_until.as_ref().is_none_or(|(before, _)| *before < until) {
            state.paused_until = Some((until, why.to_owned()));
        }
    }

    /// A call was answered, if only with a refusal. `true` when the source had kept failing before.
    pub fn answered(&self) -> bool {
        let mut state = self.state();
        state.failures = 0;
        self.gauge.set(0.0);
        state.open_until.take().is_some()
    }

    /// A call failed for good. `true` when this opens the circuit.
    pub fn failed(&self) -> bool {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES {
            return false;
        }
        self.gauge.set(1.0);
        state.open_until.replace(Instant::now() + PAUSE).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_one_call_probes() {
        let circuit = Circuit::new(Gauge::noop());
        for _ in 0..2 {
            assert!(!circuit.failed() && !circuit.failed());
            assert!(!circuit.answered());
        }
        assert!(!circuit.failed() && !circuit.failed() && circuit.failed(), "three in a row");
        assert_eq!(circuit.enter().map_err(|shut| shut.after), Err(PAUSE));
        tokio::time::advance(PAUSE).await;
        assert_eq!(circuit.enter(), Ok(Pass::Probe));
        assert!(circuit.enter().is_err(), "one at a time");
        assert!(!circuit.failed(), "no news");
        tokio::time::advance(PAUSE / 2).await;
        assert!(circuit.enter().is_err(), "shut for the whole pause again");
        tokio::time::advance(PAUSE / 2).await;
        assert_eq!(circuit.enter(), Ok(Pass::Probe));
        assert!(circuit.answered());
        assert_eq!((circuit.enter(), circuit.enter()), (Ok(Pass::Whole), Ok(Pass::Whole)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_nobody_waited_for_is_followed_by_another() {
        let circuit = Circuit::new(Gauge::noop());
        assert_eq!([(); 3].map(|()| circuit.failed()), [false, false, true]);
        for _ in 0..3 {
            tokio::time::advance(PAUSE).await;
            assert_eq!(circuit.enter(), Ok(Pass::Probe));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_wish_stands_and_then_all_may_ask() {
        let circuit = Circuit::new(Gauge::noop());
        circuit.pause(Duration::from_secs(120), "banned");
        circuit.pause(Duration::from_secs(1), "limited");
        let shut = circuit.enter().expect_err("banned");
        assert_eq!((shut.after.as_secs(), &*shut.why), (120, "banned"));
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!((circuit.enter(), circuit.enter()), (Ok(Pass::Whole), Ok(Pass::Whole)));
    }
}
