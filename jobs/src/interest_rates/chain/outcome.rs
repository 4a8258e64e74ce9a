//! What became of what was sent.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Chain,
    error::ChainError,
    node::Node,
    transaction::{Hash, Outcome, Receipt, Sent},
};

/// A node for development makes a block at once, a real one after seconds: asked often first, then less and less so.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);

impl Chain {
    /// What became of the transactions of one submission, of which at most one can have been applied. Without any, it is
    /// [`Outcome::Superseded`]: there is nothing to send again.
    ///
    /// # Errors
    /// When the node cannot be asked.
    pub async fn outcome(&self, sent: &[Sent]) -> Result<Outcome, ChainError> {
        // Asked for first: a nonce that has been used by now has its receipt by the time that we ask for that.
        let used = self.node.used_nonces(self.signer.address()).await?;
        let mut reverted = None;
        for one in sent {
            match self.node.receipt(one.hash).await? {
                Some((receipt, _)) if receipt.succeeded => return Ok(Outcome::Confirmed(receipt)),
                Some((receipt, _)) => reverted = Some(receipt),
                None => {}
            }
        }
        for one in sent {
            let settled = reverted.as_ref().is_some_and(|receipt| receipt.hash == one.hash);
            if !settled && self.node.transaction(one.hash).await?.is_some() {
                return Ok(Outcome::Waiting);
            }
        }
        if let Some(receipt) = reverted {
            return self.reason(&receipt).await.map(Outcome::Reverted);
        }
        let free = sent.iter().any(|one| one.nonce >= used);
        Ok(if free { Outcome::Dropped } else { Outcome::Superseded })
    }

    /// Awaits a block with this transaction; `None` when there is none within `limit`. A node that is away for a moment
    /// is asked again.
    ///
    /// # Errors
    /// When the node could not be asked at the end of `limit`.
    pub async fn confirmed(&self, hash: Hash, limit: Duration) -> Result<Option<Receipt>, ChainError> {
        let found = awaited(&self.node, hash, limit).await?;
        Ok(found.map(|(receipt, _)| receipt))
    }

    async fn reason(&self, receipt: &Receipt) -> Result<ChainError, ChainError> {
        match self.node.transaction(receipt.hash).await? {
            Some(transaction) => self.node.reason(&transaction, receipt.block).await,
            None => Ok(ChainError::Refused("the transaction failed".into())),
        }
    }
}

/// The receipt as soon as there is one, with the address of the contract that was made.
pub async fn awaited(
    node: &Node,
    hash: Hash,
    limit: Duration,
) -> Result<Option<(Receipt, Option<alloy::primitives::Address>)>, ChainError> {
    let end = Instant::now() + limit;
    let mut pause = FIRST_LOOK;
    loop {
        let looked = tokio::time::timeout_at(end, node.receipt(hash)).await;
        let so_far = match looked {
            Ok(Ok(Some(found))) => return Ok(Some(found)),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error @ ChainError::Unreachable(_))) => Err(error),
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => Err(ChainError::Unreachable("it has not answered in time".into())),
        };
        if Instant::now() + pause >= end {
            return so_far;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
    }
}
