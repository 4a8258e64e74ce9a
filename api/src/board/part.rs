//! A part of a page, which may be missing: one slow query does not take the whole page down.

use std::time::Duration;

use runtime::error::Error;
use tokio::time::Instant;

/// A part of a page that takes longer is left out.
const LIMIT: Duration = Duration::from_secs(1);
/// A failure after this time counts as a time-out, because the server may enforce the same limit slightly earlier.
const ALMOST: Duration = Duration::from_millis(900);
/// The time in which a page should load. A part that takes longer is logged at level debug.
const BUDGET: Duration = Duration::from_millis(50);

/// A part of a page: its data, or why it is not known now.
pub(super) type Part<T> = Result<T, NotKnown>;

/// Why a part is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub(super) enum NotKnown {
    /// Its query takes over a second.
    #[strum(to_string = "Not known now: the query takes over 1 s.")]
    TooSlow,
    /// Its query fails. The log has the cause.
    #[strum(to_string = "Not known now: the query failed. The log of the API has the cause.")]
    Failed,
}

/// Runs a query of the service layer for at most a second. `what` names it in the log.
pub(super) async fn load<T>(what: &'static str, query: impl Future<Output = Result<T, Error>>) -> Part<T> {
    let begun = Instant::now();
    let result = tokio::time::timeout(LIMIT, query).await;
    let (elapsed, budget_ms) = (begun.elapsed(), BUDGET.as_millis());
    if elapsed > BUDGET {
        tracing::debug!(part = what, duration_ms = elapsed.as_millis(), budget_ms, "a part of the board took long");
    }
    match result {
        Ok(Ok(data)) => Ok(data),
        Ok(Err(Error::Unavailable(_))) | Err(_) if elapsed >= ALMOST => {
            tracing::warn!(part = what, limit_s = LIMIT.as_secs(), "a part of the board was not read in time");
            Err(NotKnown::TooSlow)
        }
        Ok(Err(error)) => {
            tracing::warn!(part = what, error = %error, "a part of the board could not be read");
            Err(NotKnown::Failed)
        }
        Err(_) => Err(NotKnown::TooSlow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_or_failing_query_leaves_its_part_out() {
        assert_eq!(load("a", async { Ok(1) }).await, Ok(1));
        assert_eq!(load::<()>("b", std::future::pending()).await, Err(NotKnown::TooSlow));
        assert_eq!(load::<()>("c", async { Err(Error::Unavailable("x".into())) }).await, Err(NotKnown::Failed));
    }
}
