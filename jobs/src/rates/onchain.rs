//! Averages in a contract: each is recorded in PostgreSQL, signed, recorded again with what was signed, and only then
//! sent, so that whoever comes after a crash at any point knows what there is to be found on the chain.
//!
//! Nothing can be saved twice: the contract refuses an id that it has. Nothing can be lost: what is recorded and not
//! withdrawn is driven to its end, by its own request, by a repetition of that request, or by the job.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::PgPool;
use tokio::{sync::Mutex, time::Instant};
use uuid::Uuid;

use super::{
    Rate,
    chain::{Chain, ChainConfig, ChainError, Outcome as Found, Prepared, Record, Scaled, Sent},
    model::{Cursor, Reading, State, Submission, Submitted},
    reconcile::ReconcileRate,
    storage::Storage,
    store::{self, sends},
};
use crate::{
    boot::db::answered,
    error::{Error, causes},
    queue::{Failure, NewJob, Origin, Outcome, Queue, enqueue},
};

/// How long a request waits for its block: some seconds more than most chains take for one.
const CONFIRM_WITHIN: Duration = Duration::from_secs(20);
/// After this the job looks after a submission: its own request has ended by then, well or not.
const RECONCILE_AFTER: Duration = Duration::from_secs(40);
/// A transaction that no block takes for this long pays too little.
const STUCK: Duration = Duration::from_secs(60);
/// How long one process may hold the sender: less than the database leaves a transaction idle.
const TURN: Duration = Duration::from_secs(12);
/// Between two looks of the job, and after the chain could not be asked.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a receipt is awaited before it is looked whether there can still be one.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks at a node that knows of a receipt but not yet of its effect.
const BEAT: Duration = Duration::from_millis(100);

/// The storage on a chain.
pub struct OnChain {
    chain: Chain,
    contract: String,
    pool: PgPool,
    queue: Queue,
    /// One at a time in this process, so that those who wait for the sender hold no connection.
    turn: Mutex<()>,
}

/// What stands between a submission and its end.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Ours(#[from] Error),
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// How far a submission got.
#[derive(Debug, PartialEq, Eq)]
enum Driven {
    Saved,
    /// It is on its way.
    Waiting,
    /// There is none any more.
    Withdrawn,
}

/// What to send next.
enum Next<'a> {
    /// Something new.
    New,
    /// The same once more.
    Again(&'a Prepared),
    /// The same with more to pay for.
    Dearer(&'a Prepared),
}

impl OnChain {
    /// Makes the client; nothing is asked yet, so that a chain which is down keeps nobody from starting.
    pub fn new(pool: &PgPool, queue: &Queue, config: &ChainConfig) -> Result<Self, Error> {
        let chain = Chain::new(config)?;
        let contract = chain.contract();
        Ok(Self { chain, contract, pool: pool.clone(), queue: queue.clone(), turn: Mutex::new(()) })
    }

    async fn submit(&self, submission: Submission, rate: Rate, origin: Origin) -> Result<Submitted, Error> {
        let assets = store::assets(&submission.assets);
        let key = submission.idempotency_key.as_deref();
        let Some(id) = self.record(&rate, &assets, key, origin).await? else {
            return self.repeat(key.unwrap_or_default(), &assets).await;
        };
        match self.drive(id).await {
            Ok(Driven::Saved) => Ok(Submitted::Saved),
            Ok(Driven::Waiting) => Ok(Submitted::Outstanding),
            Ok(Driven::Withdrawn) => Err(Error::Internal(format!("interest rate {id} is gone"))),
            Err(trouble) => match self.withdraw(id).await {
                Ok(true) => Err(trouble.into()),
                // Something was signed, or nobody knows: what is recorded will be saved.
                unknown => {
                    tracing::warn!(rate = %id, %trouble, ?unknown, "RATE_OUTSTANDING");
                    Ok(Submitted::Outstanding)
                }
            },
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
            Some((id, true)) => match self.drive(id).await {
                Ok(Driven::Saved) => Ok(Submitted::Replayed),
                Ok(Driven::Waiting) => Ok(Submitted::Outstanding),
                Ok(Driven::Withdrawn) => Err(withdrawn()),
                Err(trouble) => Err(trouble.into()),
            },
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

    /// Does what is left to do for a submission, for as long as a request may wait. Any number may drive the same one.
    async fn drive(&self, id: Uuid) -> Result<Driven, Trouble> {
        let deadline = Instant::now() + CONFIRM_WITHIN;
        loop {
            let Some(recorded) = answered(sends::find(&self.pool, id)).await? else { return Ok(Driven::Withdrawn) };
            match recorded.state {
                State::Saved => return Ok(Driven::Saved),
                State::Withdrawn => return Ok(Driven::Withdrawn),
                State::Pending => {}
            }
            if let Some(record) = self.chain.find(id).await? {
                answered(sends::saved(&self.pool, id, record.saved_at)).await?;
                tracing::info!(rate = %id, index = record.index, "RATE_SAVED");
                return Ok(Driven::Saved);
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(Driven::Waiting);
            }
            let sent = answered(sends::sends(&self.pool, id, &self.contract)).await?;
            let Some((last, age)) = sent.last() else {
                self.send(id, &recorded.rate, 0, Next::New).await?;
                continue;
            };
            let hashes: Vec<_> = sent.iter().map(|(send, _)| Sent { nonce: send.nonce, hash: send.hash }).collect();
            match self.chain.outcome(&hashes).await? {
                Found::Waiting if *age < STUCK => {
                    self.chain.confirmed(last.hash, rest.min(LOOK)).await?;
                }
                Found::Waiting => self.send(id, &recorded.rate, sent.len(), Next::Dearer(last)).await?,
                Found::Dropped => self.send(id, &recorded.rate, sent.len(), Next::Again(last)).await?,
                Found::Superseded => self.send(id, &recorded.rate, sent.len(), Next::New).await?,
                Found::Reverted(reason) => {
                    tracing::warn!(rate = %id, %reason, "RATE_REVERTED");
                    self.send(id, &recorded.rate, sent.len(), Next::New).await?;
                }
                Found::Confirmed(_) => tokio::time::sleep(BEAT).await,
            }
        }
    }

    /// Signs and sends in this sender's name, alone among all processes; does nothing when somebody else has sent for
    /// this submission since `seen`.
    async fn send(&self, id: Uuid, rate: &Rate, seen: usize, next: Next<'_>) -> Result<(), Trouble> {
        let _turn = self.turn.lock().await;
        let work = async {
            let held = answered(sends::lock_sender(&self.pool, &self.chain.sender())).await?;
            let pending = answered(sends::find(&self.pool, id)).await?.is_some_and(|now| now.state == State::Pending);
            if !pending || answered(sends::sends(&self.pool, id, &self.contract)).await?.len() != seen {
                return Ok(());
            }
            let sent = match self.sign_and_send(id, rate, next).await {
                // It arrived meanwhile, or something that pays more has the nonce: the next look tells which.
                Err(Trouble::Chain(ChainError::AlreadySaved | ChainError::NonceUsed | ChainError::Underpriced)) => {
                    Ok(())
                }
                other => other,
            };
            // It ends by itself as well.
            let _ = held.rollback().await;
            sent
        };
        tokio::time::timeout(TURN, work)
            .await
            .unwrap_or_else(|_| Err(ChainError::Unreachable("the node takes too long".into()).into()))
    }

    async fn sign_and_send(&self, id: Uuid, rate: &Rate, next: Next<'_>) -> Result<(), Trouble> {
        let units =
            Scaled::try_from(rate.decimal()).map_err(|error| Error::Internal(format!("rate {rate}: {error}")))?;
        let raw = match next {
            Next::Again(last) => {
                answered(sends::touch(&self.pool, id, last.hash)).await?;
                last.raw.clone()
            }
            Next::New => self.record_signed(id, self.chain.prepare(id, units).await).await?,
            Next::Dearer(last) => {
                self.record_signed(id, self.chain.replace(id, units, last.nonce, last.fees).await).await?
            }
        };
        Ok(self.chain.send(&raw).await?)
    }

    /// Commits what was signed before anybody sends it.
    async fn record_signed(&self, id: Uuid, signed: Result<Prepared, ChainError>) -> Result<Vec<u8>, Trouble> {
        let signed = signed?;
        answered(sends::record(&self.pool, id, &self.contract, &self.chain.sender(), &signed)).await?;
        Ok(signed.raw)
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Ours(error) => error,
            Trouble::Chain(error) => Self::Unavailable(error.to_string()),
        }
    }
}

fn reading(record: Record) -> Reading {
    Reading { rate: Rate::stored(record.rate.to_decimal()), at: record.saved_at, cursor: Cursor(record.index.into()) }
}

impl Storage for OnChain {
    fn save(&self, submission: Submission, rate: Rate, origin: Origin) -> BoxFuture<'_, Result<Submitted, Error>> {
        self.submit(submission, rate, origin).boxed()
    }

    fn current(&self) -> BoxFuture<'_, Result<Option<Reading>, Error>> {
        async move { Ok(self.chain.current().await.map_err(Trouble::from)?.map(reading)) }.boxed()
    }

    fn history(&self, before: Option<Cursor>, limit: u32) -> BoxFuture<'_, Result<Vec<Reading>, Error>> {
        let before = before.map(|Cursor(index)| u64::try_from(index).unwrap_or(u64::MAX));
        async move {
            let page = self.chain.page(before, limit).await.map_err(Trouble::from)?;
            Ok(page.into_iter().map(reading).collect())
        }
        .boxed()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        async move { self.chain.ready().await.map_err(|error| error.to_string()) }.boxed()
    }

    fn reconcile(&self, id: Uuid) -> BoxFuture<'_, Result<Outcome, Failure>> {
        async move {
            match self.drive(id).await {
                Ok(Driven::Saved | Driven::Withdrawn) => Ok(Outcome::Done),
                Ok(Driven::Waiting) => Ok(Outcome::SnoozeBecause(AGAIN, "the chain has not confirmed it yet".into())),
                // An outage of the chain or of the database uses up no attempt.
                Err(trouble @ (Trouble::Chain(ChainError::Unreachable(_)) | Trouble::Ours(Error::Unavailable(_)))) => {
                    tracing::warn!(rate = %id, %trouble, "a rate waits to be saved");
                    Ok(Outcome::SnoozeBecause(AGAIN, causes(&trouble)))
                }
                Err(trouble) => Err(trouble.into()),
            }
        }
        .boxed()
    }
}
