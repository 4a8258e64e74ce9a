//! Locks that Redis did not release in time: the release is repeated until it succeeds, or until the locks have expired.
//!
//! Redis may take a lock that it confirmed too late. The read has gone on without it, and every other process would wait
//! for it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::redis::Redis;
use runtime::mutex::lock;

/// The pause between two attempts. While the circuit breaker of Redis is open, an attempt costs nothing.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// The limit of pending releases. The locks of others expire. In an outage only the first reads can have taken a lock:
/// the circuit breaker refuses the later ones.
const MAX_PENDING: usize = 1_000;

/// The releases to be repeated.
#[derive(Default)]
pub struct PendingUnlocks(Mutex<State>);

#[derive(Default)]
struct State {
    unlocks: VecDeque<Unlock>,
    /// Whether a task repeats them. There is one at most.
    is_running: bool,
}

/// The release of the locks that a token holds.
#[derive(Clone)]
struct Unlock {
    keys: Vec<String>,
    token: u128,
    /// When the locks have expired in any case.
    expires_at: Instant,
}

impl PendingUnlocks {
    /// Repeats a failed release in the background, for at most `ttl`, the lifetime of the locks.
    pub(super) fn add(self: &Arc<Self>, redis: &Redis, keys: &[String], token: u128, ttl: Duration) {
        let mut state = lock(&self.0);
        if state.unlocks.len() < MAX_PENDING {
            state.unlocks.push_back(Unlock { keys: keys.to_vec(), token, expires_at: Instant::now() + ttl });
            if !std::mem::replace(&mut state.is_running, true) {
                tokio::spawn(self.clone().run(redis.clone()));
            }
        }
    }

    /// Ends when no release is pending.
    async fn run(self: Arc<Self>, redis: Redis) {
        sleep(RETRY_PAUSE).await;
        while let Some(Unlock { keys, token, .. }) = self.next() {
            match redis.unlock(&keys, token).await {
                Ok(()) => drop(lock(&self.0).unlocks.pop_front()),
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// The oldest release whose locks have not expired. It stays in the list.
    fn next(&self) -> Option<Unlock> {
        let (mut state, now) = (lock(&self.0), Instant::now());
        state.unlocks.retain(|unlock| now < unlock.expires_at);
        let next = state.unlocks.front().cloned();
        state.is_running = next.is_some();
        next
    }
}
