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
/// The pauses before the same bytes are sent again, which double from the first to the last. A node behind a load balancer
/// or with a private pool does not show a transaction that it has accepted.
const FIRST_RESEND_PAUSE: Duration = Duration::from_millis(500);
const MAX_RESEND_PAUSE: Duration = Duration::from_secs(4);
/// The pauses after a reverted transaction, which double with each one from the first to the last. Each transaction costs
/// its fee: one call sends at most four, and a day at most some 150.
const FIRST_REVERT_PAUSE: Duration = Duration::from_secs(2);
const MAX_REVERT_PAUSE: Duration = Duration::from_secs(600);

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
        let mut resend_pause = FIRST_RESEND_PAUSE;
        let mut resend_at = Instant::now() + resend_pause;
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
                TransactionOutcome::Dropped if Instant::now() < resend_at => {
                    tokio::time::sleep_until(resend_at.min(deadline)).await;
                }
                TransactionOutcome::Dropped => {
                    self.send(id, &recorded.rate, sent.len(), Next::Resend(last)).await?;
                    resend_pause = resend_pause.saturating_mul(2).min(MAX_RESEND_PAUSE);
                    resend_at = Instant::now() + resend_pause;
                }
                TransactionOutcome::Superseded => self.send(id, &recorded.rate, sent.len(), Next::New).await?,
                TransactionOutcome::Confirmed(_)
                | TransactionOutcome::Reverted { reason: ChainError::AlreadySaved, .. } => {
                    tokio::time::sleep(EFFECT_POLL).await;
                }
                TransactionOutcome::Reverted { count, reason } => {
                    let wait = revert_pause(count).saturating_sub(*age);
                    if wait >= rest {
                        return Err(reverted_error(count, &reason).into());
                    }
                    if wait.is_zero() {
                        tracing::warn!(rate = %id, %reason, count, "a submission was reverted; sending another");
                        self.send(id, &recorded.rate, sent.len(), Next::New).await?;
                    } else {
                        tokio::time::sleep(wait).await;
                    }
                }
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

/// The pause between the last of `count` reverted transactions of a submission and the next one.
fn revert_pause(count: usize) -> Duration {
    let doublings = count.saturating_sub(1).min(16);
    FIRST_REVERT_PAUSE.saturating_mul(1 << doublings).min(MAX_REVERT_PAUSE)
}

/// The error of a submission whose next transaction is due only later, because `count` have been reverted.
fn reverted_error(count: usize, reason: &ChainError) -> ChainError {
    let transactions = if count == 1 { "transaction was" } else { "transactions were" };
    ChainError::Refused(format!(
        "{count} {transactions} reverted, and the next one follows after a pause; the last reason: {reason}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_each_reverted_transaction() {
        for (count, seconds) in [(0, 2), (1, 2), (2, 4), (4, 16), (9, 512), (10, 600), (usize::MAX, 600)] {
            assert_eq!(revert_pause(count), Duration::from_secs(seconds), "{count}");
        }
    }
}
