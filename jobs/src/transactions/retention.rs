//! Retention: deletes old rows of transactions from time to time, in every worker.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use queue::{Retention, retry::Backoff};
use runtime::error::Error;

/// The average time between two runs.
const INTERVAL: Duration = Duration::from_secs(3600);

/// The number of rows that one step reads.
pub(crate) const STEP_SIZE: i64 = 5000;

/// The result of one step.
pub(crate) struct Step<I> {
    /// The last id that was read, where the next step begins; `None` after the last step.
    next: Option<I>,
    deleted: i64,
}

impl<I> Step<I> {
    /// A step that read so many rows, up to the id `last`. One that read fewer than [`STEP_SIZE`] was the last.
    pub(crate) fn new(read: i64, last: Option<I>, deleted: i64) -> Self {
        Self { next: last.filter(|_| read == STEP_SIZE), deleted }
    }
}

/// Deletes rows about once an hour until `stop`: those that are older than the age at which dead letters are deleted.
/// `delete` does one step, after an id. After a failure the next run deletes the rest. `what` names the rows in the log.
pub(super) async fn run<I: Default, F>(
    retention: Retention,
    stop: &CancellationToken,
    what: &'static str,
    delete: impl Fn(I, Duration) -> F,
) where
    F: Future<Output = Result<Step<I>, Error>>,
{
    // The cleaner runs every five minutes, twelve times as often. In tests it runs more often, and so does this.
    let interval = INTERVAL.min(retention.every * 12);
    loop {
        // Jitter from zero to twice the interval: workers that start together do not run the retention together.
        let wait = Backoff { base: interval * 2, cap: interval * 2 }.wait(1);
        tokio::select! { () = tokio::time::sleep(wait) => {} () = stop.cancelled() => return }
        let deleted = async {
            let (mut next, mut deleted) = (Some(I::default()), 0);
            while let Some(after) = next.filter(|_| !stop.is_cancelled()) {
                let step = delete(after, retention.dead).await?;
                deleted += step.deleted;
                next = step.next;
            }
            Ok::<i64, Error>(deleted)
        };
        match deleted.await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, what, "deleted expired rows"),
            Err(error) => tracing::warn!(%error, what, "could not delete expired rows; retrying later"),
        }
    }
}
