//! Ends running jobs that an operator has cancelled.
//!
//! A worker knows every request that stands: it looks at them when it is told to, and at each heartbeat. A run whose job
//! is among them asks once more, since a replay may have withdrawn the request meanwhile, and is then aborted. Requests
//! name jobs and not runs, so that one whose run ends by itself, or with its worker, is met by the next run.

use std::{collections::HashSet, time::Duration};

use sqlx::PgPool;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{retry::Backoff, store};
use runtime::error::causes;

/// The error of a job that an operator has cancelled.
pub const CANCELLED: &str = "cancelled by operator";

/// The jobs that are to be ended, as far as this worker knows.
pub struct Cancellations {
    pool: PgPool,
    requested: watch::Sender<HashSet<String>>,
    /// Rung when there may be new ones.
    pub signal: Notify,
}

impl Cancellations {
    /// Knows of none.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, requested: watch::Sender::default(), signal: Notify::new() }
    }

    /// Looks until `stop`, whenever the signal rings and at least every so often.
    pub async fn watch(&self, every: Duration, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match store::operator::cancellations(&self.pool).await {
                Ok(ids) => {
                    self.requested.send_if_modified(|requested| {
                        *requested = ids.into_iter().collect();
                        // Nobody waits for there being none.
                        !requested.is_empty()
                    });
                }
                Err(error) => {
                    tracing::debug!(error = causes(&error), "could not look for cancelled jobs; trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.signal.notified() => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Waits until a job is to be ended. For each run this is a look into a set that is empty nearly always.
    pub async fn requested(&self, job: &str) {
        let mut requested = self.requested.subscribe();
        let mut failures = 0;
        loop {
            // The sender is `self`.
            let _ = requested.wait_for(|requested| requested.contains(job)).await;
            match store::operator::is_cancelled(&self.pool, job).await {
                Ok(true) => return,
                // Withdrawn: what is known here is old, and the next look will say so.
                Ok(false) => drop(requested.changed().await),
                Err(_) => {
                    failures += 1;
                    tokio::time::sleep(Backoff::DATABASE.wait(failures)).await;
                }
            }
        }
    }
}
