//! Averages in PostgreSQL: saved when they are recorded.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    Rate,
    model::{Cursor, Reading, Submission, Submitted},
    storage::Storage,
    store,
};
use crate::{
    boot::db::answered,
    error::Error,
    queue::{Failure, Origin, Outcome},
};

/// The pause of a job that another worker has to run.
const ELSEWHERE: Duration = Duration::from_secs(30);

/// The storage that needs nothing else.
pub struct Postgres {
    pub pool: PgPool,
}

impl Storage for Postgres {
    fn save(&self, submission: Submission, rate: Rate, _: Origin) -> BoxFuture<'_, Result<Submitted, Error>> {
        async move {
            let assets = store::assets(&submission.assets);
            let key = submission.idempotency_key.as_deref();
            if answered(store::save(&self.pool, &rate, &assets, key)).await? {
                return Ok(Submitted::Saved);
            }
            let known = answered(store::is_same(&self.pool, "postgres", key, &assets)).await?;
            Ok(if known { Submitted::Replayed } else { Submitted::Conflict })
        }
        .boxed()
    }

    fn current(&self) -> BoxFuture<'_, Result<Option<Reading>, Error>> {
        async move { Ok(self.history(None, 1).await?.pop()) }.boxed()
    }

    fn history(&self, before: Option<Cursor>, limit: u32) -> BoxFuture<'_, Result<Vec<Reading>, Error>> {
        let before = before.map_or(Uuid::max(), |Cursor(id)| Uuid::from_u128(id));
        answered(store::history(&self.pool, before, limit)).boxed()
    }

    /// The database is asked by whoever asks for this.
    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }

    fn reconcile(&self, id: Uuid) -> BoxFuture<'_, Result<Outcome, Failure>> {
        tracing::warn!(rate = %id, "a rate waits for a worker with STORAGE_BACKEND=smart_contract");
        async {
            Ok(Outcome::SnoozeBecause(ELSEWHERE, "it waits for a worker with STORAGE_BACKEND=smart_contract".into()))
        }
        .boxed()
    }

    fn abandon(&self, id: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        tracing::error!(rate = %id, "RATE_ABANDONED: only a worker with STORAGE_BACKEND=smart_contract can save it");
        async { Ok(()) }.boxed()
    }
}
