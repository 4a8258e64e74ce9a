//! Waits for a named condition with a deadline, instead of a fixed sleep.

use std::time::{Duration, Instant};

/// Much shorter than any wait in a test, much longer than a database query takes.
const STEP: Duration = Duration::from_millis(10);

/// Waits until the condition holds.
///
/// # Panics
/// If the condition does not hold within `deadline`. The message contains `what`.
pub async fn eventually(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < deadline, "condition not met within {deadline:?}: {what}");
        tokio::time::sleep(STEP).await;
    }
}
