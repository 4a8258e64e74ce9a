//! Webhooks that repeat an id with another payload. They are recorded in batches of their own, so that no other webhook
//! waits for them, and deleted when they are old.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{
    model::{NewTransaction, Transaction},
    store::conflicts::delete_expired,
};
use crate::{
    boot::db::answered,
    error::Error,
    queue::{Retention, batch::Limits, retry::Backoff},
};

/// One writer, so that within a process no commit waits for the lock of an id that another one holds.
pub const WRITES: Limits = Limits { writers: 1, size: 500, waiting: 20_000 };
/// Between two passes of the retention, on average.
const EVERY: Duration = Duration::from_secs(3600);

/// A webhook that contradicts what is recorded.
#[derive(Debug, Clone)]
pub struct Conflict {
    pub new: NewTransaction,
    /// The fields that differ.
    pub fields: Vec<&'static str>,
    pub correlation_id: Option<String>,
}

impl Conflict {
    /// Compares a webhook with what is recorded; `None` when they are equal.
    pub fn between(recorded: &Transaction, new: NewTransaction, correlation_id: Option<String>) -> Option<Self> {
        let fields = recorded.differences(&new);
        (!fields.is_empty()).then_some(Self { new, fields, correlation_id })
    }

    /// Logs it for the operator.
    pub fn log(&self) {
        tracing::warn!(
            transaction_id = self.new.transaction_id,
            fields = self.fields.join(", "),
            correlation_id = self.correlation_id,
            "webhook repeats an id with another payload; the first one stands",
        );
    }
}

/// Deletes conflicts that are as old as a dead letter may become, until `stop`. A pass that fails is left to the next.
pub async fn retain(pool: &PgPool, retention: Retention, stop: &CancellationToken) {
    let every = EVERY.min(retention.every * 12);
    loop {
        // Full jitter around the middle: workers that were started together do not start their passes together.
        let wait = Backoff { base: every * 2, cap: every * 2 }.wait(1);
        tokio::select! { () = tokio::time::sleep(wait) => {} () = stop.cancelled() => return }
        match pass(pool, retention.dead, stop).await {
            Ok(0) => {}
            Ok(ids) => tracing::info!(ids, "deleted old webhook conflicts"),
            Err(error) => tracing::warn!(%error, "could not delete old webhook conflicts; trying again later"),
        }
    }
}

/// Walks all ids once; returns how many were deleted.
async fn pass(pool: &PgPool, age: Duration, stop: &CancellationToken) -> Result<i64, Error> {
    let (mut next, mut deleted) = (Some(String::new()), 0);
    while let Some(after) = next.filter(|_| !stop.is_cancelled()) {
        let step = answered(delete_expired(pool, &after, age)).await?;
        deleted += step.deleted;
        next = step.next;
    }
    Ok(deleted)
}
