//! The job: brings a submission to its end whose process may have died between sending it and hearing of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Rates;
use crate::queue::{Failure, Job, Outcome, Policy, Run, retry::Backoff};

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
        Policy { backoff, deadline: Duration::from_secs(60), concurrency: 8, ..Policy::default() }
    }

    async fn run(self, rates: Rates, _: Run) -> Result<Outcome, Failure> {
        rates.storage.reconcile(self.id).await
    }
}
