//! Waiting for a named condition with a named deadline, instead of sleeping.

use std::time::{Duration, Instant};

/// Short against anything worth waiting for, long against the cost of asking a database.
const STEP: Duration = Duration::from_millis(10);

/// Waits until the condition holds.
///
/// # Panics
/// It does not within `deadline`; `what` says which one it was.
pub async fn eventually(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(STEP).await;
    }
}
