//! Storage of averages in PostgreSQL.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use uuid::Uuid;

use super::{
    Rate,
    model::{Cursor, SavedRate, Submission, SubmissionOutcome},
    storage::Storage,
    store,
};
use queue::{Failure, Origin, Outcome};
use runtime::{db::Pool, error::Error};

/// The snooze of a job that only a worker with another backend can run.
const OTHER_WORKER_PAUSE: Duration = Duration::from_secs(30);

/// The storage in PostgreSQL.
pub struct PostgresStorage {
    pub pool: Pool,
}

impl Storage for PostgresStorage {
    fn save(&self, submission: Submission, rate: Rate, _: Origin) -> BoxFuture<'_, Result<SubmissionOutcome, Error>> {
        async move {
            let assets = store::assets_json(&submission.assets);
            let key = submission.idempotency_key.as_deref();
            if store::save(&self.pool, &rate, &assets, key).await? {
                return Ok(SubmissionOutcome::Saved);
            }
            let known = store::has_same_assets(&self.pool, "postgres", key, &assets).await?;
            Ok(if known { SubmissionOutcome::Replayed } else { SubmissionOutcome::Conflict })
        }
        .boxed()
    }

    fn current(&self) -> BoxFuture<'_, Result<Option<SavedRate>, Error>> {
        async move { Ok(self.history(None, 1).await?.pop()) }.boxed()
    }

    fn history(&self, before: Option<Cursor>, limit: u32) -> BoxFuture<'_, Result<Vec<SavedRate>, Error>> {
        let before = before.map_or(Uuid::max(), |Cursor(id)| Uuid::from_u128(id));
        store::history(&self.pool, before, limit).boxed()
    }

    /// Always ready: the readiness check of the process covers the database.
    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }

    fn reconcile(&self, id: Uuid) -> BoxFuture<'_, Result<Outcome, Failure>> {
        tracing::warn!(rate = %id, "only a worker with STORAGE_BACKEND=smart_contract can save the rate; job snoozed");
        async {
            Ok(Outcome::SnoozeBecause(
                OTHER_WORKER_PAUSE,
                "it waits for a worker with STORAGE_BACKEND=smart_contract".into(),
            ))
        }
        .boxed()
    }

    fn abandon(&self, id: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        tracing::error!(rate = %id, "RATE_ABANDONED: only a worker with STORAGE_BACKEND=smart_contract can save it");
        async { Ok(()) }.boxed()
    }
}
