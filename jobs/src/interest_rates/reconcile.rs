//! The job: brings a submission to its end whose process may have died between sending it and hearing of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Rates;
use crate::{
    error::Error,
    queue::{Failure, Job, Outcome, Policy, Revive, Run, Tx, retry::Backoff},
};

/// A sender may have been promised that its rate will be saved: only an operator ends that. At one failure in ten minutes
/// these are 19 years.
const ENDLESS: u32 = 1_000_000;

/// Ends the submission with this id, unless that has happened.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReconcileRate {
    pub id: Uuid,
}

impl Job for ReconcileRate {
    const NAME: &'static str = "reconcile_rate";
    type Context = Rates;

    fn policy(_: &Rates) -> Policy {
        let backoff = Backoff { base: Duration::from_secs(5), cap: Duration::from_secs(600) };
        // One sender sends one after the other: more at once would only wait for each other.
        Policy { attempts: ENDLESS, backoff, deadline: Duration::from_secs(60), concurrency: 8 }
    }

    async fn run(self, rates: Rates, _: Run) -> Result<Outcome, Failure> {
        rates.storage.reconcile(self.id).await
    }

    async fn bury(self, rates: Rates, _reason: String) -> Result<(), Failure> {
        rates.storage.abandon(self.id).await
    }
}

impl Revive for ReconcileRate {
    /// Its next run sees how the submission stands.
    async fn revive(self, _: Rates, _: &mut Tx) -> Result<(), Error> {
        Ok(())
    }
}
