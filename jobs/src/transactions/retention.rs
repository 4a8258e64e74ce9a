//! Retention: deletes old rows of transactions from time to time, in every worker.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use queue::{Retention, retry::Backoff};
use runtime::error::Error;

/// The average time between two runs.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Calls `delete_all` about once an hour until `stop`. The call deletes the rows that are older than the age at which dead
/// letters are deleted, and returns their number. After a failure the next call continues. `what` names the rows in the log.
pub(super) async fn run<F>(
    retention: Retention,
    stop: &CancellationToken,
    what: &'static str,
    delete_all: impl Fn(Duration) -> F,
) where
    F: Future<Output = Result<i64, Error>>,
{
    // The cleaner runs every five minutes, twelve times as often. In tests it runs more often, and so does this.
    let interval = INTERVAL.min(retention.every * 12);
    loop {
        // Jitter from zero to twice the interval: workers that start together do not run the retention together.
        let wait = Backoff { base: interval * 2, cap: interval * 2 }.wait(1);
        tokio::select! { () = tokio::time::sleep(wait) => {} () = stop.cancelled() => return }
        match delete_all(retention.dead).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, what, "deleted expired rows"),
            Err(error) => tracing::warn!(%error, what, "could not delete expired rows; retrying later"),
        }
    }
}
