//! Readiness of the chain storage: contract, funds of the account, and the last refusal.

use std::time::Duration;

use tokio::time::Instant;

use super::ChainStorage;
use crate::interest_rates::chain::ChainError;
use runtime::{error::causes, mutex::lock};

/// How long a successful check of the funds stays valid. A check costs four calls, and readiness is polled often.
const FUNDED_FOR: Duration = Duration::from_secs(30);
/// How long a refusal makes the storage unready, unless a transaction is accepted earlier. Then requests may try again.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// Results of earlier calls.
#[derive(Debug, Default)]
pub(super) struct Health {
    funded_until: Option<Instant>,
    refused: Option<(Instant, String)>,
}

impl Health {
    /// Records that the node accepted a transaction.
    pub(super) fn record_acceptance(&mut self) {
        self.refused = None;
    }

    /// Records that a transaction could not be signed or was refused.
    pub(super) fn record_failure(&mut self, error: &ChainError) {
        match error {
            // The next check of the funds reports it, and also when it is over.
            ChainError::Unfunded(_) => self.funded_until = None,
            ChainError::Refused(_) => self.refused = Some((Instant::now() + REFUSED_FOR, causes(error))),
            _ => {}
        }
    }

    /// The last refusal, if it is recent.
    fn refusal(&self) -> Option<String> {
        self.refused.as_ref().filter(|(until, _)| *until > Instant::now()).map(|(_, error)| error.clone())
    }
}

impl ChainStorage {
    /// Checks that a submission can be saved now.
    pub(super) async fn check(&self) -> Result<(), String> {
        self.chain.ready().await.map_err(|error| causes(&error))?;
        let (funded, refusal) = {
            let health = lock(&self.health);
            (health.funded_until.is_some_and(|until| until > Instant::now()), health.refusal())
        };
        if !funded {
            self.chain.can_pay().await.map_err(|error| causes(&error))?;
            lock(&self.health).funded_until = Some(Instant::now() + FUNDED_FOR);
        }
        refusal.map_or(Ok(()), Err)
    }
}
