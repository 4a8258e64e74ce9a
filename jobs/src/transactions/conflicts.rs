//! Conflicting webhooks, which repeat an id with another payload. They are recorded in separate batches, so that no
//! other webhook waits for them, and deleted when they are old.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::store::conflicts::delete_expired;
use queue::{Retention, batch::Limits, retry::Backoff};
use runtime::{db::Pool, error::Error};

/// One writer: with two, a commit could wait for a row lock that the other one holds on the same id.
pub(super) const WRITES: Limits = Limits { writers: 1, size: 500, waiting: 20_000, wait: None };
/// The average time between two runs of the retention.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Deletes conflicts at the age at which dead letters are deleted, until `stop`. After a failure the next run
/// continues.
pub(super) async fn run_retention(pool: &Pool, retention: Retention, stop: &CancellationToken) {
    let interval = INTERVAL.min(retention.every * 12);
    loop {
        // Jitter from zero to twice the interval: workers that start together do not run the retention together.
        let wait = Backoff { base: interval * 2, cap: interval * 2 }.wait(1);
        tokio::select! { () = tokio::time::sleep(wait) => {} () = stop.cancelled() => return }
        match delete_all_expired(pool, retention.dead, stop).await {
            Ok(0) => {}
            Ok(ids) => tracing::info!(ids, "deleted old webhook conflicts"),
            Err(error) => tracing::warn!(%error, "could not delete old webhook conflicts; trying again later"),
        }
    }
}

/// Checks all ids once. Returns the number of deleted ones.
async fn delete_all_expired(pool: &Pool, age: Duration, stop: &CancellationToken) -> Result<i64, Error> {
    let (mut next, mut deleted) = (Some(String::new()), 0);
    while let Some(after) = next.filter(|_| !stop.is_cancelled()) {
        let step = delete_expired(pool, &after, age).await?;
        deleted += step.deleted;
        next = step.next;
    }
    Ok(deleted)
}
