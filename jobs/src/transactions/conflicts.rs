//! Conflicting webhooks, which repeat an id with another payload. They are recorded in separate batches, so that no
//! other webhook waits for them, and deleted when they are old.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{retention, store::conflicts::delete_expired};
use queue::{Retention, batch::Limits};
use runtime::{db::Pool, error::Error};

/// One writer: with two, a commit could wait for a row lock that the other one holds on the same id.
pub(super) const WRITES: Limits = Limits { writers: 1, size: 500, waiting: 20_000, wait: None };

/// Deletes conflicts at the age at which dead letters are deleted, until `stop`.
pub(super) async fn run_retention(pool: &Pool, retention: Retention, stop: &CancellationToken) {
    retention::run(retention, stop, "webhook conflicts", |age| delete_all_expired(pool, age, stop)).await;
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
