//! Looks for lost claims: runs that the database has in this worker's name and that the worker does not know.
//!
//! After a failover to an asynchronous standby, or a restore, the database may have forgotten the results of jobs: they
//! are Running in the name of a worker that has ended them. It renews its lease, so no other worker rescues them.
//!
//! One statement reads all queues of the worker. Claims may be under way meanwhile, so a run that it finds may be new
//! and not lost. Therefore nothing is given back here. The queue's [`Claimer`](crate::claim::Claimer) is woken, and
//! checks its queue between two of its claims.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{in_flight::InFlight, poller::WakeSignal, store};
use runtime::{db::Pool, error::causes};

/// Leases between two looks. With the shipped lease this costs one statement a minute.
const LEASES_PER_LOOK: u32 = 4;

/// Looks for lost claims of all queues of a worker.
pub(crate) struct LostClaimFinder {
    pub pool: Pool,
    pub worker: Arc<str>,
    pub lease: Duration,
    pub in_flight: HashMap<&'static str, InFlight>,
    pub signals: HashMap<&'static str, Arc<WakeSignal>>,
    pub stop: CancellationToken,
}

impl LostClaimFinder {
    /// Looks every few leases until `stop`. A look that failed is not repeated; the next one does its work.
    pub(crate) async fn run(self) {
        loop {
            let look = async {
                tokio::time::sleep(self.lease * LEASES_PER_LOOK).await;
                self.find().await
            };
            let Some(found) = self.stop.run_until_cancelled(look).await else { return };
            match found {
                Ok(queues) => {
                    let signals = queues.iter().filter_map(|queue| self.signals.get(queue.as_str()));
                    signals.for_each(|signal| signal.request_lost_claim_check());
                }
                Err(error) => tracing::debug!(error = causes(&error), "could not look for lost claims"),
            }
        }
    }

    /// The queues of the runs that this worker may have lost.
    async fn find(&self) -> sqlx::Result<BTreeSet<String>> {
        let queues: Vec<&str> = self.in_flight.keys().copied().collect();
        // Read before the statement: a run that ends in between is no longer Running when the statement reads its row.
        let known = self.in_flight.values().flat_map(|in_flight| in_flight.tokens().clone());
        let (known, tokens): (Vec<String>, Vec<i32>) = known.unzip();
        let lost = store::find_lost_claims(&self.pool, &self.worker, &queues, &known, &tokens).await?;
        Ok(lost.into_iter().map(|run| run.queue).collect())
    }
}
