//! Drives a submission to its end, from wherever it stands: looks for it on the chain, signs, sends, sends again.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{OnChain, Trouble};
use crate::{
    boot::db::answered,
    error::Error,
    interest_rates::{
        Rate,
        chain::{ChainError, Hash, Outcome as Found, Prepared, Scaled, Sent},
        model::State,
        store::sends,
    },
};

/// How long a request waits for its block: some seconds more than most chains take for one.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(20);
/// A transaction that no block takes for this long pays too little.
const STUCK: Duration = Duration::from_secs(60);
/// How long one process may hold the sender: less than the database leaves a transaction idle.
const TURN: Duration = Duration::from_secs(12);
/// How long a receipt is awaited before it is looked whether there can still be one.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks at a node that knows of a receipt but not yet of its effect.
const BEAT: Duration = Duration::from_millis(100);
/// Before a node that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// What to send next.
enum Next<'a> {
    /// Something new.
    New,
    /// The same once more.
    Again(&'a Prepared),
    /// The same with more to pay for.
    Dearer(&'a Prepared),
}

/// How far a submission got.
#[derive(Debug, PartialEq, Eq)]
pub enum Driven {
    Saved,
    /// It is on its way.
    Waiting,
    /// It was withdrawn.
    Withdrawn,
}

impl OnChain {
    /// Drives a submission for as long as a request may wait. Once something is signed, a node that does not answer is no
    /// reason to end: the answer to a sending may be lost, and the next look finds the transaction by its hash.
    pub(super) async fn drive_patiently(&self, id: Uuid) -> Result<Driven, Trouble> {
        let deadline = Instant::now() + CONFIRM_WITHIN;
        loop {
            match self.drive(id, deadline).await {
                Err(Trouble::Chain(ChainError::Unreachable(reason)))
                    if Instant::now() + PAUSE < deadline
                        && !answered(sends::sends(&self.pool, id, &self.contract)).await?.is_empty() =>
                {
                    tracing::debug!(rate = %id, reason, "the chain did not answer; looking again");
                    tokio::time::sleep(PAUSE).await;
                }
                driven => return driven,
            }
        }
    }

    /// Does what is left to do for a submission until `deadline`. Any number may drive the same one.
    pub(super) async fn drive(&self, id: Uuid, deadline: Instant) -> Result<Driven, Trouble> {
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

    /// Signs and sends in this sender's name, alone among all processes; does nothing when another process has sent for
    /// this submission since `seen`.
    async fn send(&self, id: Uuid, rate: &Rate, seen: usize, next: Next<'_>) -> Result<(), Trouble> {
        let _turn = self.turn.lock().await;
        let work = async {
            let held = answered(sends::lock_sender(&self.pool, &self.chain.sender())).await?;
            let pending = answered(sends::find(&self.pool, id)).await?.is_some_and(|now| now.state == State::Pending);
            if !pending || answered(sends::sends(&self.pool, id, &self.contract)).await?.len() != seen {
                return Ok(());
            }
            let sent = self.sign_and_send(id, rate, next).await;
            // It ends by itself as well.
            let _ = held.rollback().await;
            sent
        };
        let sent = tokio::time::timeout(TURN, work)
            .await
            .unwrap_or_else(|_| Err(ChainError::Unreachable("the node takes too long".into()).into()));
        match &sent {
            Ok(()) => self.health().accepted(),
            Err(Trouble::Chain(error)) => self.health().failed(error),
            Err(Trouble::Ours(_)) => {}
        }
        sent
    }

    async fn sign_and_send(&self, id: Uuid, rate: &Rate, next: Next<'_>) -> Result<(), Trouble> {
        let units =
            Scaled::try_from(rate.decimal()).map_err(|error| Error::Internal(format!("rate {rate}: {error}")))?;
        let last = match next {
            Next::New => return self.send_new(id, units).await,
            Next::Again(last) => {
                answered(sends::touch(&self.pool, id, last.hash)).await?;
                match self.chain.send(&last.raw).await {
                    // Prices have risen since it was signed: the same bytes would be refused every time.
                    Err(ChainError::Underpriced) => last,
                    sent => return arrived(sent),
                }
            }
            Next::Dearer(last) => last,
        };
        let dearer = self.chain.replace(id, units, last.nonce, last.fees).await;
        let Some(dearer) = self.record_signed(id, dearer).await? else { return Ok(()) };
        match self.chain.send(&dearer.raw).await {
            Err(error @ (ChainError::Refused(_) | ChainError::Unfunded(_))) => {
                self.refused(id, dearer.hash, error).await
            }
            // Kept: the next one pays more than this one would have.
            Err(ChainError::Underpriced) => Ok(()),
            sent => arrived(sent),
        }
    }

    async fn send_new(&self, id: Uuid, units: Scaled) -> Result<(), Trouble> {
        let prepared = self.chain.prepare(id, units).await;
        let Some(prepared) = self.record_signed(id, prepared).await? else { return Ok(()) };
        match self.chain.send(&prepared.raw).await {
            Err(
                error @ (ChainError::Refused(_)
                | ChainError::Unfunded(_)
                | ChainError::Misconfigured(_)
                | ChainError::Underpriced),
            ) => self.refused(id, prepared.hash, error).await,
            sent => arrived(sent),
        }
    }

    /// Commits what was signed before anybody sends it; `None` when the contract has the id already.
    async fn record_signed(&self, id: Uuid, signed: Result<Prepared, ChainError>) -> Result<Option<Prepared>, Trouble> {
        let signed = match signed {
            Err(ChainError::AlreadySaved) => return Ok(None),
            signed => signed?,
        };
        answered(sends::record(&self.pool, id, &self.contract, &self.chain.sender(), &signed)).await?;
        Ok(Some(signed))
    }

    /// Forgets what the node has refused as soon as it was sent: nothing was taken, so nothing is promised. Some refusals
    /// are only words for a transaction that the node has, so it is asked.
    async fn refused(&self, id: Uuid, hash: Hash, error: ChainError) -> Result<(), Trouble> {
        if self.chain.knows(hash).await? {
            return Ok(());
        }
        tracing::warn!(rate = %id, %hash, %error, "RATE_REFUSED");
        answered(sends::delete_refused(&self.pool, id, hash)).await?;
        Err(error.into())
    }
}

/// What the next look tells is no error: it arrived meanwhile, or another transaction has the nonce.
fn arrived(sent: Result<(), ChainError>) -> Result<(), Trouble> {
    match sent {
        Err(ChainError::AlreadySaved | ChainError::NonceUsed) => Ok(()),
        sent => Ok(sent?),
    }
}
