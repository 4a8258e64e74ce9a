//! Cancellation of running jobs.
//!
//! A worker knows all open requests: it reads them on a notification and at each heartbeat. If the job of a run is among
//! them, the runner first checks the database, because a replay may have withdrawn the request. Then it aborts the run.
//! Requests name jobs, not runs: if a run ends by itself or crashes, the request applies to the next run.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{retry::Backoff, store};
use runtime::{db::Pool, error::causes};

/// The error of a job that an operator has cancelled.
pub const CANCELLED: &str = "cancelled by operator";

/// The cancellation requests that this worker knows.
pub(crate) struct Cancellations {
    pool: Pool,
    requested: watch::Sender<HashSet<String>>,
    /// Notified when there may be new requests.
    pub signal: Notify,
}

impl Cancellations {
    /// Starts without requests.
    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool, requested: watch::Sender::default(), signal: Notify::new() }
    }

    /// Reads the requests until `stop`: on each notification, and at least once per `every`. During a drain no notification
    /// arrives.
    pub(crate) async fn watch(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let read = stop.run_until_cancelled(store::operator::cancellations(&self.pool));
            let Some(ids) = read.await else { return };
            match ids {
                Ok(ids) => {
                    self.requested.send_if_modified(|requested| {
                        *requested = ids.into_iter().collect();
                        // An empty set wakes no run.
                        !requested.is_empty()
                    });
                }
                Err(error) => {
                    tracing::debug!(error = causes(&error), "could not read cancellation requests; retrying");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.signal.notified() => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// The requests that this worker knows, and their changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<HashSet<String>> {
        self.requested.subscribe()
    }

    /// Waits until a job is cancelled. Call it for jobs with a request.
    pub(crate) async fn wait_for_request(&self, job: &str) {
        let mut requested = self.requested.subscribe();
        let mut failures = 0;
        loop {
            // The channel stays open, because `self` is the sender.
            let _ = requested.wait_for(|requested| requested.contains(job)).await;
            match store::operator::is_cancelled(&self.pool, job).await {
                Ok(true) => return,
                // Withdrawn: the set is outdated, and the next read updates it.
                Ok(false) => drop(requested.changed().await),
                Err(_) => {
                    failures += 1;
                    tokio::time::sleep(Backoff::DATABASE.wait(failures)).await;
                }
            }
        }
    }
}
