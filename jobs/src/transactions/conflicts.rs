//! Conflicting webhooks, which repeat an id with another payload. They are recorded in separate batches, so that no
//! other webhook waits for them, and deleted when they are old.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{
    model::{NewTransaction, Transaction},
    store::conflicts::delete_expired,
};
use queue::{Retention, batch::Limits, retry::Backoff};
use runtime::error::Error;

/// One writer: with two, a commit could wait for a row lock that the other one holds on the same id.
pub const WRITES: Limits = Limits { writers: 1, size: 500, waiting: 20_000 };
/// The average time between two runs of the retention.
const INTERVAL: Duration = Duration::from_secs(3600);

/// A webhook whose payload differs from the recorded transaction.
#[derive(Debug, Clone)]
pub struct Conflict {
    pub new: NewTransaction,
    /// The names of the fields that differ.
    pub fields: Vec<&'static str>,
    pub correlation_id: Option<String>,
}

impl Conflict {
    /// Compares a webhook with the recorded transaction. Returns `None` if they are equal.
    pub fn between(recorded: &Transaction, new: NewTransaction, correlation_id: Option<String>) -> Option<Self> {
        let fields = recorded.differences(&new);
        (!fields.is_empty()).then_some(Self { new, fields, correlation_id })
    }

    /// Logs the conflict for the operator.
    pub fn log(&self) {
        tracing::warn!(
            transaction_id = self.new.transaction_id,
            fields = self.fields.join(", "),
            correlation_id = self.correlation_id,
            "webhook repeats an id with another payload; the first payload stands",
        );
    }
}

/// Deletes conflicts at the age at which dead letters are deleted, until `stop`. After a failure the next run
/// continues.
pub async fn run_retention(pool: &PgPool, retention: Retention, stop: &CancellationToken) {
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
async fn delete_all_expired(pool: &PgPool, age: Duration, stop: &CancellationToken) -> Result<i64, Error> {
    let (mut next, mut deleted) = (Some(String::new()), 0);
    while let Some(after) = next.filter(|_| !stop.is_cancelled()) {
        let step = delete_expired(pool, &after, age).await?;
        deleted += step.deleted;
        next = step.next;
    }
    Ok(deleted)
}
