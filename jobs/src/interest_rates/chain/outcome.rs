//! Outcomes of sent transactions.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Chain,
    error::ChainError,
    rpc::Node,
    transaction::{Hash, Outcome, Receipt, SentTransaction},
};

/// The pauses between polls for a receipt, which double from the first to the last. A development node includes a
/// transaction at once, a real chain after seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

impl Chain {
    /// The outcome of the transactions of one submission, of which at most one can succeed. Without transactions it is
    /// [`Outcome::Superseded`]: there is nothing to send again.
    ///
    /// # Errors
    /// Fails if the node cannot be reached.
    pub async fn outcome(&self, sent: &[SentTransaction]) -> Result<Outcome, ChainError> {
        // Read before the receipts: a nonce that is used by now has a receipt by the time of the next call.
        let used = self.node.used_nonces(self.signer.address()).await?;
        let mut reverted = None;
        for transaction in sent {
            match self.node.receipt(transaction.hash).await? {
                Some(receipt) if receipt.succeeded => return Ok(Outcome::Confirmed(receipt)),
                Some(receipt) => reverted = Some(receipt),
                None => {}
            }
        }
        for transaction in sent {
            let has_reverted = reverted.as_ref().is_some_and(|receipt| receipt.hash == transaction.hash);
            if !has_reverted && self.node.transaction(transaction.hash).await?.is_some() {
                return Ok(Outcome::Waiting);
            }
        }
        if let Some(receipt) = reverted {
            return self.reason(&receipt).await.map(Outcome::Reverted);
        }
        let is_nonce_free = sent.iter().any(|transaction| transaction.nonce >= used);
        Ok(if is_nonce_free { Outcome::Dropped } else { Outcome::Superseded })
    }

    /// Waits until a block includes this transaction; `None` if none does within `limit`. Retries while the node is
    /// unreachable.
    ///
    /// # Errors
    /// Fails if the node is unreachable when `limit` ends.
    pub async fn await_receipt(&self, hash: Hash, limit: Duration) -> Result<Option<Receipt>, ChainError> {
        self.node.await_receipt(hash, limit).await
    }

    /// Why a transaction was reverted.
    async fn reason(&self, receipt: &Receipt) -> Result<ChainError, ChainError> {
        match self.node.transaction(receipt.hash).await? {
            Some(transaction) => self.node.reason(&transaction, receipt.block).await,
            None => Ok(ChainError::Refused("the transaction failed".into())),
        }
    }
}

impl Node {
    /// Polls for a receipt: see [`Chain::await_receipt`].
    pub(super) async fn await_receipt(&self, hash: Hash, limit: Duration) -> Result<Option<Receipt>, ChainError> {
        let end = Instant::now() + limit;
        let mut pause = FIRST_PAUSE;
        loop {
            let polled = tokio::time::timeout_at(end, self.receipt(hash)).await;
            let result = match polled {
                Ok(Ok(Some(found))) => return Ok(Some(found)),
                Ok(Ok(None)) => Ok(None),
                Ok(Err(error @ ChainError::Unreachable(_))) => Err(error),
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => Err(ChainError::Unreachable("it has not responded in time".into())),
            };
            if Instant::now() + pause >= end {
                return result;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}
