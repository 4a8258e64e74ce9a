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
        let mut reverted = Vec::new();
        for transaction in sent {
            match self.node.receipt(transaction.hash).await? {
                Some(receipt) if receipt.succeeded => return Ok(Outcome::Confirmed(receipt)),
                Some(receipt) => reverted.push(receipt),
                None => {}
            }
        }
        // A node keeps the transactions of its blocks, so only one without a receipt can be pending.
        let has_reverted = |one: &SentTransaction| reverted.iter().any(|receipt| receipt.hash == one.hash);
        for transaction in sent.iter().filter(|one| !has_reverted(one)) {
            if self.node.transaction(transaction.hash).await?.is_some() {
                return Ok(Outcome::Waiting);
            }
        }
        if sent.last().is_some_and(|last| last.nonce >= used && !has_reverted(last)) {
            return Ok(Outcome::Dropped);
        }
        match reverted.last() {
            Some(last) => Ok(Outcome::Reverted { count: reverted.len(), reason: self.reason(last).await? }),
            None => Ok(Outcome::Superseded),
        }
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
