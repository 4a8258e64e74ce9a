//! Reconcile job: completes a submission whose process may have crashed between sending and confirmation.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Rates;
use queue::{Failure, Job, Outcome, Policy, Replayable, Run, Tx, retry::Backoff};
use runtime::error::Error;

/// The client may have been promised that its rate will be saved, so only an operator may end the job. At one attempt
/// every 10 min this number lasts 19 years.
const UNLIMITED_ATTEMPTS: u32 = 1_000_000;

/// Completes the submission with this id, unless it is complete.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReconcileRate {
    pub id: Uuid,
}

impl Job for ReconcileRate {
    const NAME: &'static str = "reconcile_rate";
    type Context = Rates;

    fn policy(_: &Rates) -> Policy {
        let backoff = Backoff { base: Duration::from_secs(5), cap: Duration::from_secs(600) };
        // Transactions of one account are sent one by one: more concurrent runs would only wait for each other.
        Policy {
            attempts: UNLIMITED_ATTEMPTS,
            backoff,
            deadline: Duration::from_secs(60),
            concurrency: 8,
            ..Policy::default()
        }
    }

    async fn run(self, rates: Rates, _: Run) -> Result<Outcome, Failure> {
        rates.storage.reconcile(self.id).await
    }

    async fn on_discard(self, rates: Rates, _reason: String) -> Result<(), Failure> {
        rates.storage.abandon(self.id).await
    }
}

impl Replayable for ReconcileRate {
    /// Nothing to restore: the next run reads the state of the submission.
    async fn on_replay(self, _: Rates, _: &mut Tx) -> Result<(), Error> {
        Ok(())
    }
}
