//! The pause that a provider has asked for, or its ban: no calls until it ends.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use runtime::mutex::lock;

/// The end of the pause, if there is one, and the reason.
#[derive(Default)]
pub(super) struct Pause(Mutex<Option<(Instant, String)>>);

impl Pause {
    /// Fails while a pause lasts, with the rest of it and its reason.
    pub(super) fn check(&self) -> Result<(), (Duration, String)> {
        let now = Instant::now();
        match &*lock(&self.0) {
            Some((until, reason)) if now < *until => Err((*until - now, reason.clone())),
            _ => Ok(()),
        }
    }

    /// Starts a pause. A pause that ends later stays.
    pub(super) fn start(&self, time: Duration, reason: &str) {
        let until = Instant::now() + time;
        let mut paused = lock(&self.0);
        if paused.as_ref().is_none_or(|(before, _)| *before < until) {
            *paused = Some((until, reason.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_pause_counts_and_then_all_calls_pass() {
        let pause = Pause::default();
        pause.start(Duration::from_secs(120), "banned");
        pause.start(Duration::from_secs(1), "limited");
        assert_eq!(pause.check(), Err((Duration::from_secs(120), "banned".to_owned())));
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!((pause.check(), pause.check()), (Ok(()), Ok(())));
    }
}
