//! The job: processes one transaction.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    Transactions,
    model::{Settlement, Status},
    processor::{Answer, Processor, for_sender},
    store,
};
use crate::{
    boot::db::answered,
    error::Error,
    queue::{self, Failure, Job, JobId, NewJob, Outcome, Policy, Revive, Run, Tx, retry::Backoff},
};

/// The pause after the database could not be asked or written to.
const OUR_TROUBLE: Duration = Duration::from_secs(1);

/// Settles the transaction with this id of ours.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessTransaction {
    pub id: Uuid,
}

/// The job of a new transaction.
pub(super) fn job(id: Uuid, delay: Duration) -> Result<NewJob, Error> {
    Ok(NewJob::of(&ProcessTransaction { id })?.id(JobId::from(id)).after(delay))
}

/// Seconds until the job of a transaction is due, when it waits.
pub(super) async fn due_in(pool: &PgPool, id: Uuid) -> Result<Option<f64>, Error> {
    queue::due_in(pool, JobId::from(id)).await
}

impl Job for ProcessTransaction {
    const NAME: &'static str = "process_transaction";
    type Context = Transactions;

    fn policy(transactions: &Transactions) -> Policy {
        // Full jitter draws from zero to this: the first retry comes 1 s later on average.
        let backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(600) };
        match &*transactions.processor {
            // One update, shared with all that run beside it: two claims full, so that one runs while the next is made.
            Processor::Simulated => Policy { backoff, concurrency: 2000, ..Policy::default() },
            Processor::Http(service) => Policy {
                attempts: service.config.attempts,
                backoff,
                deadline: service.config.timeout + Duration::from_secs(15),
                concurrency: 200,
            },
        }
    }

    async fn run(self, transactions: Transactions, run: Run) -> Result<Outcome, Failure> {
        match self.process(&transactions, &run).await {
            Ok(Answer::Settled(Settlement::Processed)) => Ok(Outcome::Done),
            Ok(Answer::Settled(Settlement::Failed(reason))) => Ok(Outcome::Reject(reason)),
            Ok(Answer::Again(pause)) => {
                Ok(Outcome::SnoozeBecause(pause, "the processor wants to be asked again later".into()))
            }
            Ok(Answer::Trouble { error, not_before }) => Err(Failure::new(error).not_before(not_before)),
            // Ours, not the processor's: it uses up no attempt, or what the processor did would end as FAILED.
            Err(Error::Unavailable(error)) => {
                tracing::warn!(error, "could not record what became of a transaction");
                Ok(Outcome::SnoozeBecause(OUR_TROUBLE, format!("its settlement could not be recorded: {error}")))
            }
            Err(Error::Internal(error)) => {
                tracing::error!(error, "a transaction cannot be processed");
                // The sender reads this one when it was the last attempt.
                Err(Failure::new("internal error"))
            }
        }
    }

    async fn bury(self, transactions: Transactions, reason: String) -> Result<(), Failure> {
        Ok(transactions.settle(self.id, Settlement::Failed(for_sender(reason))).await?)
    }
}

impl Revive for ProcessTransaction {
    /// The one way back from FAILED.
    async fn revive(self, _: Transactions, tx: &mut Tx) -> Result<(), Error> {
        store::revive(tx, self.id).await
    }
}

impl ProcessTransaction {
    /// Asks the processor, and records its consent.
    async fn process(&self, transactions: &Transactions, run: &Run) -> Result<Answer, Error> {
        let consent = Answer::Settled(Settlement::Processed);
        let answer = match &*transactions.processor {
            Processor::Simulated => consent,
            Processor::Http(service) => match answered(store::get(&transactions.pool, self.id)).await? {
                Some(transaction) if transaction.status == Status::Processing => service.ask(&transaction, run).await,
                // Settled by an earlier run whose result was lost, or deleted: nothing is left to do.
                _ => return Ok(consent),
            },
        };
        if answer == Answer::Settled(Settlement::Processed) {
            transactions.settle(self.id, Settlement::Processed).await?;
        }
        Ok(answer)
    }
}
