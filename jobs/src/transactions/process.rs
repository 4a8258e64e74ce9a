//! The job that processes one transaction.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Transactions,
    model::{Settlement, Status, Transaction},
    processor::{CallOutcome, Processor, sender_error},
    store,
};
use queue::{Failure, Job, JobId, Outcome, Policy, Replayable, Run, Tx, operator::keep_failure, retry::Backoff};
use runtime::{db::Pool, error::Error};

/// The pause before a retry when the database is not available.
const DATABASE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Processes and settles the transaction with this internal id.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessTransaction {
    pub id: Uuid,
}

/// The payload of a transaction's job.
pub(super) fn payload_of(id: Uuid) -> Result<String, Error> {
    serde_json::to_string(&ProcessTransaction { id }).map_err(|error| Error::Internal(error.to_string()))
}

/// Seconds until the job of a transaction is due; `None` if it does not wait.
pub(super) async fn due_in(pool: &Pool, id: Uuid) -> Result<Option<f64>, Error> {
    queue::due_in(pool, JobId::from(id)).await
}

impl Job for ProcessTransaction {
    const NAME: &'static str = "process_transaction";
    type Context = Transactions;

    fn policy(transactions: &Transactions) -> Policy {
        // Full jitter draws from zero to this: the first retry comes 1 s later on average.
        let backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(600) };
        let shared = Policy { backoff, fair: transactions.fair_by_sender, ..Policy::default() };
        match &*transactions.processor {
            // A job is one update in a batch shared with concurrent jobs. Two full claims fit: one runs while the next
            // is claimed.
            Processor::Simulated => Policy { concurrency: 2000, ..shared },
            Processor::Http(client) => Policy {
                attempts: client.config.attempts,
                deadline: client.config.timeout + Duration::from_secs(15),
                concurrency: 200,
                ..shared
            },
        }
    }

    async fn run(self, transactions: Transactions, run: Run) -> Result<Outcome, Failure> {
        match self.process(&transactions, &run).await {
            Ok(CallOutcome::Settled(Settlement::Processed)) => Ok(Outcome::Done),
            Ok(CallOutcome::Settled(Settlement::Failed(reason))) => Ok(Outcome::Reject(reason)),
            Ok(CallOutcome::CallLater(pause)) => {
                Ok(Outcome::SnoozeBecause(pause, "the processor asked for a later call".into()))
            }
            Ok(CallOutcome::Failed { error, not_before }) => Err(Failure::new(error).not_before(not_before)),
            // The database failed, not the processor, so this uses up no attempt. Otherwise a transaction that the
            // processor accepted could end as FAILED.
            Err(error @ (Error::Unavailable(_) | Error::Overloaded(_))) => {
                let error = error.to_string();
                tracing::warn!(error, "could not record the settlement of a transaction");
                Ok(Outcome::SnoozeBecause(DATABASE_RETRY_DELAY, format!("could not record its settlement: {error}")))
            }
            Err(Error::Internal(error)) => {
                tracing::error!(error, "could not process a transaction");
                // The sender sees this text if this was the last attempt.
                Err(Failure::new("internal error"))
            }
        }
    }

    async fn on_discard(self, transactions: Transactions, reason: String) -> Result<(), Failure> {
        transactions.settle(self.id, Settlement::Failed(sender_error(reason))).await?;
        Ok(())
    }
}

impl Replayable for ProcessTransaction {
    /// Resets a FAILED transaction to PROCESSING: the only transition out of FAILED. Its job keeps how it had failed.
    async fn on_replay(self, _: Transactions, tx: &mut Tx) -> Result<(), Error> {
        match store::reset_failed(tx, self.id).await? {
            Some(before) => keep_failure(tx, JobId::from(self.id), before.at, &before.error).await,
            None => Ok(()),
        }
    }
}

impl ProcessTransaction {
    /// Calls the processor, and settles the transaction if it was accepted. If an earlier run has settled it, and the result
    /// of that run was lost, this run has the same outcome. So the job of a failed transaction becomes a dead letter,
    /// which can be replayed.
    async fn process(&self, transactions: &Transactions, run: &Run) -> Result<CallOutcome, Error> {
        let accepted = CallOutcome::Settled(Settlement::Processed);
        let outcome = match &*transactions.processor {
            Processor::Simulated => accepted,
            Processor::Http(client) => match store::get(&transactions.pool, self.id).await? {
                Some(transaction) if transaction.status == Status::Processing => client.call(&transaction, run).await?,
                settled => return Ok(earlier_outcome(settled)),
            },
        };
        if outcome == CallOutcome::Settled(Settlement::Processed)
            && !transactions.settle(self.id, Settlement::Processed).await?
        {
            return Ok(earlier_outcome(store::get(&transactions.pool, self.id).await?));
        }
        Ok(outcome)
    }
}

/// The outcome of a transaction that is settled already. One that was deleted has nothing left to do.
fn earlier_outcome(transaction: Option<Transaction>) -> CallOutcome {
    let failed = transaction.filter(|transaction| transaction.status == Status::Failed);
    CallOutcome::Settled(match failed {
        Some(transaction) => Settlement::Failed(transaction.error.unwrap_or_default()),
        None => Settlement::Processed,
    })
}
