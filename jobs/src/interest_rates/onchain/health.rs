//! What readiness says about the chain beyond its answers: whether the account can pay, and what was refused last.

use std::{sync::PoisonError, time::Duration};

use tokio::time::Instant;

use super::OnChain;
use crate::{error::causes, interest_rates::chain::ChainError};

/// How long an account that could pay is taken to be able to: a look costs four calls, and readiness is asked for often.
const FUNDED_FOR: Duration = Duration::from_secs(30);
/// How long a refusal counts, unless something is accepted before. Then requests try again.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// What is remembered of earlier calls.
#[derive(Debug, Default)]
pub struct Health {
    funded_until: Option<Instant>,
    refused: Option<(Instant, String)>,
}

impl Health {
    /// The node took a transaction.
    pub fn accepted(&mut self) {
        self.refused = None;
    }

    /// A transaction could not be signed, or was not taken.
    pub fn failed(&mut self, error: &ChainError) {
        match error {
            // Its own look says it, and when that is over.
            ChainError::Unfunded(_) => self.funded_until = None,
            ChainError::Refused(_) => self.refused = Some((Instant::now() + REFUSED_FOR, causes(error))),
            _ => {}
        }
    }

    /// The refusal that still counts.
    fn refusal(&self) -> Option<String> {
        self.refused.as_ref().filter(|(until, _)| *until > Instant::now()).map(|(_, error)| error.clone())
    }
}

impl OnChain {
    pub(super) fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a submission would be saved now.
    pub(super) async fn check(&self) -> Result<(), String> {
        self.chain.ready().await.map_err(|error| causes(&error))?;
        let (funded, refusal) = {
            let health = self.health();
            (health.funded_until.is_some_and(|until| until > Instant::now()), health.refusal())
        };
        if !funded {
            self.chain.can_pay().await.map_err(|error| causes(&error))?;
            self.health().funded_until = Some(Instant::now() + FUNDED_FOR);
        }
        refusal.map_or(Ok(()), Err)
    }
}
