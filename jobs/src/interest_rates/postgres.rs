//! Storage of averages in PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    Rate,
    model::{Cursor, SavedRate, Submission, SubmissionOutcome},
    storage::{Storage, outcome_after},
    store,
};
use queue::{Failure, Origin, Outcome};
use runtime::{db::Pool, error::Error, executor::begin};

/// The snooze of a job that only a worker with another backend can run.
const OTHER_WORKER_PAUSE: Duration = Duration::from_secs(30);

/// The storage in PostgreSQL.
pub(super) struct PostgresStorage {
    pub pool: Pool,
}

#[async_trait]
impl Storage for PostgresStorage {
    async fn save(&self, submission: Submission, rate: Rate, _: Origin) -> Result<SubmissionOutcome, Error> {
        let assets = store::assets_json(&submission.assets);
        let key = submission.idempotency_key.as_deref();
        let mut tx = begin(&self.pool).await?;
        let saved = store::save(&mut tx, &rate, &assets, key).await?;
        // Until here every failure undoes the transaction. Of a failed commit the outcome is unknown.
        if let Err(error) = tx.commit().await {
            return outcome_after(error.into());
        }
        if saved {
            return Ok(SubmissionOutcome::Saved);
        }
        // The key is known, so an average is saved under it.
        match store::has_same_assets(&self.pool, "postgres", key, &assets).await {
            Ok(true) => Ok(SubmissionOutcome::Replayed),
            Ok(false) => Ok(SubmissionOutcome::Conflict),
            Err(error) => outcome_after(error),
        }
    }

    async fn current(&self) -> Result<Option<SavedRate>, Error> {
        Ok(self.history(None, 1).await?.pop())
    }

    async fn history(&self, before: Option<Cursor>, limit: u32) -> Result<Vec<SavedRate>, Error> {
        let before = before.map_or(Uuid::max(), |Cursor(id)| Uuid::from_u128(id));
        store::history(&self.pool, before, limit).await
    }

    /// Always ready: the readiness check of the process covers the database.
    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    async fn reconcile(&self, id: Uuid) -> Result<Outcome, Failure> {
        tracing::warn!(rate = %id, "only a worker with STORAGE_BACKEND=smart_contract can save the rate; job snoozed");
        let reason = "it waits for a worker with STORAGE_BACKEND=smart_contract";
        Ok(Outcome::SnoozeBecause(OTHER_WORKER_PAUSE, reason.into()))
    }

    async fn abandon(&self, id: Uuid) -> Result<(), Failure> {
        tracing::error!(rate = %id, "the job of a rate is dead: only a worker with STORAGE_BACKEND=smart_contract can save it");
        Ok(())
    }
}
