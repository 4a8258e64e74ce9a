//! Averages in a contract: each is recorded in PostgreSQL, signed, recorded again with what was signed, and only then
//! sent, so that whoever comes after a crash at any point knows what there is to be found on the chain.
//!
//! Nothing can be saved twice: the contract refuses an id that it has. Nothing can be lost: what is recorded and not
//! withdrawn is driven to its end, by its own request, by a repetition of that request, or by the job.

mod drive;
mod health;
mod history;

use std::time::Duration;

use futures_util::{FutureExt, TryFutureExt, future::BoxFuture};
use metrics::counter;
use sqlx::PgPool;
use tokio::{sync::Mutex, time::Instant};
use uuid::Uuid;

use self::{
    drive::{CONFIRM_WITHIN, Driven},
    health::Health,
};
use super::{
    Rate,
    chain::{Chain, ChainConfig, ChainError},
    metrics::CHAIN_ERRORS,
    model::{Cursor, Reading, Recorded, State, Submission, Submitted},
    reconcile::ReconcileRate,
    storage::Storage,
    store::{self, sends},
};
use crate::{
    boot::db::answered,
    error::{Error, causes},
    queue::{Failure, NewJob, Origin, Outcome, Queue, enqueue},
};

/// After this the job looks after a submission: its own request has ended by then, well or not.
const RECONCILE_AFTER: Duration = Duration::from_secs(40);
/// Between two looks of the job, and after the chain could not be asked.
const AGAIN: Duration = Duration::from_secs(5);

/// The storage on a chain.
pub struct OnChain {
    chain: Chain,
    contract: String,
    pool: PgPool,
    queue: Queue,
    /// One at a time in this process, so that those who wait for the sender hold no connection.
    turn: Mutex<()>,
    health: std::sync::Mutex<Health>,
}

/// What stands between a submission and its end.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Ours(#[from] Error),
    #[error(transparent)]
    Chain(ChainError),
}

impl From<ChainError> for Trouble {
    /// Counts it: whatever becomes of a submission, an operator sees what the chain says.
    fn from(error: ChainError) -> Self {
        counter!(CHAIN_ERRORS, "reason" => error.reason()).increment(1);
        Self::Chain(error)
    }
}

impl OnChain {
    /// Makes the client; nothing is asked yet, so that a chain which is down keeps nobody from starting.
    pub fn new(pool: &PgPool, queue: &Queue, config: &ChainConfig) -> Result<Self, Error> {
        let chain = Chain::new(config)?;
        let contract = chain.contract();
        let (turn, health) = Default::default();
        Ok(Self { chain, contract, pool: pool.clone(), queue: queue.clone(), turn, health })
    }

    async fn submit(&self, submission: Submission, rate: Rate, origin: Origin) -> Result<Submitted, Error> {
        let assets = store::assets(&submission.assets);
        let key = submission.idempotency_key.as_deref();
        let Some(id) = self.record(&rate, &assets, key, origin).await? else {
            return self.repeat(key.unwrap_or_default(), &assets).await;
        };
        match self.drive_patiently(id).await {
            Ok(Driven::Saved) => Ok(Submitted::Saved),
            Ok(Driven::Waiting) => Ok(Submitted::Outstanding),
            // By a repetition of its key, which found nothing of it anywhere.
            Ok(Driven::Withdrawn) => Err(Error::Unavailable("the submission was withdrawn".into())),
            Err(trouble) => self.give_up(id, trouble).await,
        }
    }

    /// Records a submission with its job; `None` when its key is known.
    async fn record(
        &self,
        rate: &Rate,
        assets: &serde_json::Value,
        key: Option<&str>,
        origin: Origin,
    ) -> Result<Option<Uuid>, Error> {
        let mut tx = self.queue.begin().await?;
        let Some(id) = answered(sends::insert(&mut tx, rate, assets, key)).await? else { return Ok(None) };
        let job = NewJob::of(&ReconcileRate { id })?.after(RECONCILE_AFTER).origin(origin);
        answered(enqueue(&mut tx, &[job])).await?;
        answered(tx.commit()).await?;
        Ok(Some(id))
    }

    /// A submission whose key is known: helped to its end if it has not come to one.
    async fn repeat(&self, key: &str, assets: &serde_json::Value) -> Result<Submitted, Error> {
        let withdrawn = || Error::Unavailable("the first submission of this key was just withdrawn".into());
        match answered(sends::known(&self.pool, key, assets)).await? {
            None => Err(withdrawn()),
            Some((_, false)) => Ok(Submitted::Conflict),
            Some((id, true)) => match self.drive_patiently(id).await {
                Ok(Driven::Saved) => Ok(Submitted::Replayed),
                Ok(Driven::Waiting) => Ok(Submitted::Outstanding),
                Ok(Driven::Withdrawn) => Err(withdrawn()),
                Err(trouble) => self.give_up(id, trouble).await,
            },
        }
    }

    /// Ends a request that could not save its submission: withdrawn while nothing of it is anywhere, and promised
    /// otherwise, since the job goes on with it until it is saved.
    async fn give_up(&self, id: Uuid, trouble: Trouble) -> Result<Submitted, Error> {
        match self.withdraw(id).await {
            Ok(true) => Err(trouble.into()),
            // Something was signed, or it is unknown.
            unknown => {
                tracing::warn!(rate = %id, error = causes(&trouble), ?unknown, "RATE_OUTSTANDING");
                Ok(Submitted::Outstanding)
            }
        }
    }

    async fn withdraw(&self, id: Uuid) -> Result<bool, Error> {
        let _turn = self.turn.lock().await;
        answered(async {
            let mut held = sends::lock_sender(&self.pool, &self.chain.sender()).await?;
            let withdrawn = sends::withdraw(&mut held, id).await?;
            held.commit().await?;
            Ok(withdrawn)
        })
        .await
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Ours(error) => error,
            Trouble::Chain(error) => Self::Unavailable(causes(&error)),
        }
    }
}

impl Storage for OnChain {
    fn save(&self, submission: Submission, rate: Rate, origin: Origin) -> BoxFuture<'_, Result<Submitted, Error>> {
        self.submit(submission, rate, origin).boxed()
    }

    fn current(&self) -> BoxFuture<'_, Result<Option<Reading>, Error>> {
        async move { Ok(history::current(&self.chain).await.map_err(Trouble::from)?) }.boxed()
    }

    fn history(&self, before: Option<Cursor>, limit: u32) -> BoxFuture<'_, Result<Vec<Reading>, Error>> {
        history::page(&self.chain, before, limit).map_err(|error| Trouble::from(error).into()).boxed()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        self.check().boxed()
    }

    fn reconcile(&self, id: Uuid) -> BoxFuture<'_, Result<Outcome, Failure>> {
        async move {
            match self.drive(id, Instant::now() + CONFIRM_WITHIN).await {
                Ok(Driven::Saved | Driven::Withdrawn) => Ok(Outcome::Done),
                Ok(Driven::Waiting) => Ok(Outcome::SnoozeBecause(AGAIN, "the chain has not confirmed it yet".into())),
                // Its sender may have a promise. An outage of the chain or of the database, a wrong configuration and an
                // account without funds end some day, so they use up no attempt.
                Err(trouble @ (Trouble::Chain(_) | Trouble::Ours(Error::Unavailable(_)))) => {
                    tracing::warn!(rate = %id, error = causes(&trouble), "a rate waits to be saved");
                    Ok(Outcome::SnoozeBecause(AGAIN, causes(&trouble)))
                }
                Err(trouble) => Err(trouble.into()),
            }
        }
        .boxed()
    }

    fn abandon(&self, id: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let pending = |found: Option<Recorded>| found.is_some_and(|recorded| recorded.state == State::Pending);
            if !self.withdraw(id).await? && pending(answered(sends::find(&self.pool, id)).await?) {
                tracing::error!(rate = %id, "RATE_ABANDONED: its job is dead, but it was sent; replay the job to save it");
            }
            Ok(())
        }
        .boxed()
    }
}
