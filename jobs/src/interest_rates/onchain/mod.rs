//! Storage of averages in a smart contract. A submission is recorded in PostgreSQL, then signed. The signed transaction
//! is recorded as well, and only then sent. After a crash at any point another process knows what may be on the chain.
//!
//! A submission cannot be saved twice, because the contract refuses a known id. It cannot be lost: unless it is withdrawn,
//! it is advanced until it is saved. Its request, a repetition of the request, and the job all advance it.

mod advance;
mod health;
mod history;

use std::time::Duration;

use async_trait::async_trait;
use metrics::counter;
use tokio::{sync::Mutex, time::Instant};
use uuid::Uuid;

use self::{
    advance::{CONFIRM_WITHIN, Progress},
    health::Health,
};
use super::{
    Rate,
    chain::{Chain, ChainConfig, ChainError},
    metrics::CHAIN_ERRORS,
    model::{Cursor, RecordedSubmission, SavedRate, Submission, SubmissionOutcome, SubmissionState},
    reconcile::ReconcileRate,
    storage::{Storage, outcome_after},
    store::{self, sends},
};
use queue::{Failure, NewJob, Origin, Outcome, Queue, enqueue};
use runtime::{
    db::Pool,
    error::{Error, causes},
    time_limit::with_time_limit,
};

/// The delay of the reconcile job. By then the request of the submission has ended.
const RECONCILE_AFTER: Duration = Duration::from_secs(40);
/// The snooze of the job while the chain has not confirmed the submission or cannot be reached.
const RECHECK_AFTER: Duration = Duration::from_secs(5);

/// The storage on a chain.
pub(super) struct ChainStorage {
    chain: Chain,
    contract: String,
    pool: Pool,
    queue: Queue,
    /// Serialises senders in this process before they lock the account in the database. Waiting tasks therefore hold no
    /// connection.
    sender_lock: Mutex<()>,
    health: std::sync::Mutex<Health>,
}

/// What became of the record of a new submission.
enum Recorded {
    New(Uuid),
    /// An earlier submission has its key.
    KeyKnown,
    /// Its commit failed, so it may be recorded.
    Unknown(Error),
}

/// Why a submission could not be completed.
#[derive(Debug, thiserror::Error)]
enum StorageError {
    #[error(transparent)]
    Local(#[from] Error),
    #[error(transparent)]
    Chain(ChainError),
}

impl From<ChainError> for StorageError {
    /// Counts every chain error, so that operators see it even if the submission is saved later.
    fn from(error: ChainError) -> Self {
        counter!(CHAIN_ERRORS, "reason" => error.reason()).increment(1);
        Self::Chain(error)
    }
}

impl ChainStorage {
    /// Builds the client without I/O, so that the process starts while the chain is down.
    pub(super) fn new(pool: &Pool, queue: &Queue, config: &ChainConfig) -> Result<Self, Error> {
        let chain = Chain::new(config)?;
        let contract = chain.contract();
        let (sender_lock, health) = Default::default();
        Ok(Self { chain, contract, pool: pool.clone(), queue: queue.clone(), sender_lock, health })
    }

    /// Records a submission with its job in one transaction.
    ///
    /// # Errors
    /// When it is certainly not recorded.
    async fn record(
        &self,
        rate: &Rate,
        assets: &serde_json::Value,
        key: Option<&str>,
        origin: Origin,
    ) -> Result<Recorded, Error> {
        let mut tx = self.queue.begin().await?;
        let Some(id) = sends::insert(&mut tx, rate, assets, key).await? else { return Ok(Recorded::KeyKnown) };
        let job = NewJob::of(&ReconcileRate { id })?.after(RECONCILE_AFTER).origin(origin);
        enqueue(&mut tx, &[job]).await?;
        Ok(match with_time_limit(tx.commit()).await {
            Ok(()) => Recorded::New(id),
            Err(error) => Recorded::Unknown(error),
        })
    }

    /// Advances the earlier submission with the same key, if it has the same assets.
    async fn resume(&self, key: &str, assets: &serde_json::Value) -> Result<SubmissionOutcome, Error> {
        let withdrawn = || Error::Unavailable("the first submission of this key was just withdrawn".into());
        match sends::find_by_key(&self.pool, key, assets).await {
            // The earlier submission was recorded, and may be saved.
            Err(error) => outcome_after(error),
            Ok(None) => Err(withdrawn()),
            Ok(Some((_, false))) => Ok(SubmissionOutcome::Conflict),
            Ok(Some((id, true))) => match self.advance_with_retries(id).await {
                Ok(Progress::Saved) => Ok(SubmissionOutcome::Replayed),
                Ok(Progress::Waiting) => Ok(SubmissionOutcome::Outstanding),
                Ok(Progress::Withdrawn) => Err(withdrawn()),
                Err(error) => self.give_up(id, error).await,
            },
        }
    }

    /// Ends a request that could not save its submission. Withdraws the submission if nothing was signed. Otherwise
    /// returns `Outstanding`: the job retries until it is saved. If the withdrawal fails, it may have taken place: `Unknown`.
    async fn give_up(&self, id: Uuid, error: StorageError) -> Result<SubmissionOutcome, Error> {
        match self.withdraw(id).await {
            Ok(true) => Err(error.into()),
            // A transaction was signed, or the state is unknown.
            withdrawn => {
                let error = causes(&error);
                tracing::warn!(rate = %id, error, ?withdrawn, "a submission is not confirmed yet; its job goes on");
                Ok(if withdrawn.is_ok() { SubmissionOutcome::Outstanding } else { SubmissionOutcome::Unknown })
            }
        }
    }

    /// Withdraws a submission under the lock of the account; `false` if a transaction was signed for it.
    async fn withdraw(&self, id: Uuid) -> Result<bool, Error> {
        let _guard = self.sender_lock.lock().await;
        with_time_limit(async {
            let mut tx = sends::lock_sender(&self.pool, &self.chain.sender()).await?;
            let withdrawn = sends::withdraw(&mut tx, id).await?;
            tx.commit().await?;
            Ok(withdrawn)
        })
        .await
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Local(error) => error,
            StorageError::Chain(error) => Self::Unavailable(causes(&error)),
        }
    }
}

#[async_trait]
impl Storage for ChainStorage {
    async fn save(&self, submission: Submission, rate: Rate, origin: Origin) -> Result<SubmissionOutcome, Error> {
        let assets = store::assets_json(&submission.assets);
        let key = submission.idempotency_key.as_deref();
        let id = match self.record(&rate, &assets, key, origin).await? {
            Recorded::New(id) => id,
            Recorded::KeyKnown => return self.resume(key.unwrap_or_default(), &assets).await,
            Recorded::Unknown(error) => return outcome_after(error),
        };
        match self.advance_with_retries(id).await {
            Ok(Progress::Saved) => Ok(SubmissionOutcome::Saved),
            Ok(Progress::Waiting) => Ok(SubmissionOutcome::Outstanding),
            // A repetition with the same key withdrew it, because nothing was signed.
            Ok(Progress::Withdrawn) => Err(Error::Unavailable("the submission was withdrawn".into())),
            Err(error) => self.give_up(id, error).await,
        }
    }

    async fn current(&self) -> Result<Option<SavedRate>, Error> {
        Ok(history::current(&self.chain).await.map_err(StorageError::from)?)
    }

    async fn history(&self, before: Option<Cursor>, limit: u32) -> Result<Vec<SavedRate>, Error> {
        Ok(history::page(&self.chain, before, limit).await.map_err(StorageError::from)?)
    }

    async fn ready(&self) -> Result<(), String> {
        self.check().await
    }

    async fn reconcile(&self, id: Uuid) -> Result<Outcome, Failure> {
        match self.advance(id, Instant::now() + CONFIRM_WITHIN).await {
            Ok(Progress::Saved | Progress::Withdrawn) => Ok(Outcome::Done),
            Ok(Progress::Waiting) => {
                Ok(Outcome::SnoozeBecause(RECHECK_AFTER, "the chain has not confirmed it yet".into()))
            }
            // The client may have been promised that it is saved. Outages, a wrong configuration and an account
            // without funds are temporary, so they use up no attempt.
            Err(error @ (StorageError::Chain(_) | StorageError::Local(Error::Unavailable(_)))) => {
                tracing::warn!(rate = %id, error = causes(&error), "the chain cannot save the rate now; job snoozed");
                Ok(Outcome::SnoozeBecause(RECHECK_AFTER, causes(&error)))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn abandon(&self, id: Uuid) -> Result<(), Failure> {
        let is_pending = |found: Option<RecordedSubmission>| {
            found.is_some_and(|recorded| recorded.state == SubmissionState::Pending)
        };
        if !self.withdraw(id).await? && is_pending(sends::find(&self.pool, id).await?) {
            tracing::error!(rate = %id, "the job of a rate is dead, but a transaction was sent; replay the job");
        }
        Ok(())
    }
}
