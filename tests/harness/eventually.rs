//! Waits for a named condition with a deadline, instead of a fixed sleep.

use std::time::{Duration, Instant};

/// Much shorter than any wait in a test, much longer than a database query takes.
const STEP: Duration = Duration::from_millis(10);

/// Waits until the condition holds.
///
/// # Panics
/// If the condition does not hold within `deadline`. The message contains `what`.
pub(crate) async fn eventually(what: &str, deadline: Duration, condition: impl AsyncFnMut() -> bool) {
    eventually_or(what, deadline, condition, async || String::new()).await;
}

/// As [`eventually`], with a state that the message shows.
pub(crate) async fn eventually_or(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> bool,
    state: impl AsyncFnOnce() -> String,
) {
    let begun = Instant::now();
    loop {
        // Read before the condition: on a machine that stalls, one more look begins after the deadline.
        let is_late = begun.elapsed() >= deadline;
        if condition().await {
            return;
        }
        if is_late {
            panic!("condition not met within {deadline:?}: {what}{}", state().await);
        }
        tokio::time::sleep(STEP).await;
    }
}
