//! Advances a submission from any state until it is saved: looks it up on the chain, signs, sends, and sends again.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{ChainStorage, StorageError};
use crate::interest_rates::{
    Rate,
    chain::{ChainError, Hash, Outcome as TransactionOutcome, ScaledRate, SentTransaction, SignedTransaction},
    model::SubmissionState,
    store::sends,
};
use runtime::{error::Error, mutex::lock};

/// How long a request waits for confirmation: a few seconds longer than most chains need for a block.
pub(super) const CONFIRM_WITHIN: Duration = Duration::from_secs(20);
/// A transaction that waits longer than this for a block pays too low a fee.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// How long one process may hold the lock of the account: less than `idle_in_transaction_session_timeout`.
const SENDER_LOCK_LIMIT: Duration = Duration::from_secs(12);
/// How long to wait for a receipt before checking whether the transaction can still be included.
const RECEIPT_WAIT: Duration = Duration::from_secs(2);
/// The polling interval while a node returns a receipt, but its state does not contain the record yet.
const EFFECT_POLL: Duration = Duration::from_millis(100);
/// The pause before a retry after a node did not respond.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The next transaction to send.
enum Next<'a> {
    /// A new transaction with the next nonce.
    New,
    /// The same bytes again.
    Resend(&'a SignedTransaction),
    /// A transaction with the same nonce and a higher fee.
    ReplaceWithHigherFee(&'a SignedTransaction),
}

/// The progress of a submission.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The contract has it.
    Saved,
    /// It is not confirmed yet.
    Waiting,
    /// It was withdrawn before a transaction was signed.
    Withdrawn,
}

impl ChainStorage {
    /// Advances a submission for as long as a request may wait. Once a transaction is signed, it retries while the node is
    /// unreachable. The response to a send may be lost, and the next attempt finds the transaction by its hash.
    pub(super) async fn advance_with_retries(&self, id: Uuid) -> Result<Progress, StorageError> {
        let deadline = Instant::now() + CONFIRM_WITHIN;
        loop {
            match self.advance(id, deadline).await {
                Err(StorageError::Chain(ChainError::Unreachable(reason)))
                    if Instant::now() + RETRY_PAUSE < deadline
                        && !sends::list(&self.pool, id, &self.contract).await?.is_empty() =>
                {
                    tracing::debug!(rate = %id, reason, "the chain did not respond; retrying");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// Advances a submission until it is saved or until `deadline`. Several processes may advance the same submission.
    pub(super) async fn advance(&self, id: Uuid, deadline: Instant) -> Result<Progress, StorageError> {
        loop {
            let Some(recorded) = sends::find(&self.pool, id).await? else { return Ok(Progress::Withdrawn) };
            match recorded.state {
                SubmissionState::Saved => return Ok(Progress::Saved),
                SubmissionState::Withdrawn => return Ok(Progress::Withdrawn),
                SubmissionState::Pending => {}
            }
            if let Some(record) = self.chain.find(id).await? {
                sends::mark_saved(&self.pool, id, record.saved_at).await?;
                tracing::info!(rate = %id, index = record.index, "interest rate saved");
                return Ok(Progress::Saved);
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(Progress::Waiting);
            }
            let sent = sends::list(&self.pool, id, &self.contract).await?;
            let Some((last, age)) = sent.last() else {
                self.send(id, &recorded.rate, 0, Next::New).await?;
                continue;
            };
            let hashes: Vec<_> =
                sent.iter().map(|(send, _)| SentTransaction { nonce: send.nonce, hash: send.hash }).collect();
            match self.chain.outcome(&hashes).await? {
                TransactionOutcome::Waiting if *age < STUCK_AFTER => {
                    self.chain.await_receipt(last.hash, rest.min(RECEIPT_WAIT)).await?;
                }
                TransactionOutcome::Waiting => {
                    self.send(id, &recorded.rate, sent.len(), Next::ReplaceWithHigherFee(last)).await?
                }
                TransactionOutcome::Dropped => self.send(id, &recorded.rate, sent.len(), Next::Resend(last)).await?,
                TransactionOutcome::Superseded => self.send(id, &recorded.rate, sent.len(), Next::New).await?,
                TransactionOutcome::Reverted(reason) => {
                    tracing::warn!(rate = %id, %reason, "the contract reverted a submission; sending another transaction");
                    self.send(id, &recorded.rate, sent.len(), Next::New).await?;
                }
                TransactionOutcome::Confirmed(_) => tokio::time::sleep(EFFECT_POLL).await,
            }
        }
    }

    /// Signs and sends under the lock of the account. Does nothing if another process has signed a transaction for this
    /// submission since `seen` ones were read.
    async fn send(&self, id: Uuid, rate: &Rate, seen: usize, next: Next<'_>) -> Result<(), StorageError> {
        let _guard = self.sender_lock.lock().await;
        let work = async {
            let tx = sends::lock_sender(&self.pool, &self.chain.sender()).await?;
            let pending = sends::find(&self.pool, id).await?.is_some_and(|now| now.state == SubmissionState::Pending);
            if !pending || sends::list(&self.pool, id, &self.contract).await?.len() != seen {
                return Ok(());
            }
            let sent = self.sign_and_send(id, rate, next).await;
            // Releases the lock at once. Dropping the transaction would release it as well.
            let _ = tx.rollback().await;
            sent
        };
        let sent = tokio::time::timeout(SENDER_LOCK_LIMIT, work)
            .await
            .unwrap_or_else(|_| Err(ChainError::Unreachable("the node took too long".into()).into()));
        match &sent {
            Ok(()) => lock(&self.health).record_acceptance(),
            Err(StorageError::Chain(error)) => lock(&self.health).record_failure(error),
            Err(StorageError::Local(_)) => {}
        }
        sent
    }

    /// Signs the next transaction, commits it, and then sends it.
    async fn sign_and_send(&self, id: Uuid, rate: &Rate, next: Next<'_>) -> Result<(), StorageError> {
        let units = ScaledRate::try_from(rate.as_decimal())
            .map_err(|error| Error::Internal(format!("rate {rate}: {error}")))?;
        let replaced = match next {
            Next::New => None,
            Next::Resend(last) => {
                sends::mark_resent(&self.pool, id, last.hash).await?;
                match self.chain.send(&last.raw).await {
                    // Fees have risen since it was signed: the same bytes would be refused again.
                    Err(ChainError::Underpriced) => Some(last),
                    sent => return ignore_duplicate(sent),
                }
            }
            Next::ReplaceWithHigherFee(last) => Some(last),
        };
        let signed = match replaced {
            Some(last) => self.chain.replace(id, units, last.nonce, last.fees).await,
            None => self.chain.prepare(id, units).await,
        };
        let signed = match signed {
            Err(ChainError::AlreadySaved) => return Ok(()),
            signed => signed?,
        };
        sends::insert_send(&self.pool, id, &self.contract, &self.chain.sender(), &signed).await?;
        match self.chain.send(&signed.raw).await {
            // It stays recorded, so that the next replacement offers more than this one.
            Err(ChainError::Underpriced) if replaced.is_some() => Ok(()),
            Err(error @ (ChainError::Misconfigured(_) | ChainError::Underpriced)) if replaced.is_none() => {
                self.discard_refused(id, signed.hash, error).await
            }
            Err(error @ (ChainError::Refused(_) | ChainError::Unfunded(_))) => {
                self.discard_refused(id, signed.hash, error).await
            }
            sent => ignore_duplicate(sent),
        }
    }

    /// Deletes a transaction that the node refused when it was sent, since it cannot take effect. Some nodes also
    /// refuse a transaction that they have, so the node is queried first.
    async fn discard_refused(&self, id: Uuid, hash: Hash, error: ChainError) -> Result<(), StorageError> {
        if self.chain.has_transaction(hash).await? {
            return Ok(());
        }
        tracing::warn!(rate = %id, %hash, %error, "the node refused a submission");
        sends::delete_refused(&self.pool, id, hash).await?;
        Err(error.into())
    }
}

/// Treats a saved id and a used nonce as success: the next iteration of [`ChainStorage::advance`] handles both.
fn ignore_duplicate(sent: Result<(), ChainError>) -> Result<(), StorageError> {
    match sent {
        Err(ChainError::AlreadySaved | ChainError::NonceUsed) => Ok(()),
        sent => Ok(sent?),
    }
}
