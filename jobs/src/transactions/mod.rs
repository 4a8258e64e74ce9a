//! Transactions: records each webhook once, processes it effectively once, and lets senders look it up.

pub mod amount;
pub mod callbacks;
mod config;
mod conflicts;
mod ingest;
pub mod json;
mod list;
pub mod model;
pub mod process;
mod processor;
mod retention;
mod sender;
mod settlement_listener;
pub mod signature;
mod store;
pub mod timeline;
mod webhook;
pub mod webhook_secret;

use std::{collections::HashSet, sync::Arc, time::Duration};

pub use amount::{Amount, AmountError};
pub use config::{Config, ProcessorConfig};
use futures_util::future::join_all;
use metrics::{Counter, counter, describe_counter};
pub use model::{Cursor, Ingested, NewTransaction, Status, Transaction};
pub use sender::Sender;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::{
    callbacks::Callbacks,
    model::{Conflict, SettleRequest, Settlement},
    process::ProcessTransaction,
    processor::Processor,
    settlement_listener::SettlementListener,
    webhook::Webhook,
};
use queue::{
    Job, Origin, Queue, Retention,
    batch::{Batch, Limits},
};
use runtime::{
    db::{Database, Pool},
    error::Error,
    sabotage::{self, Bug},
    telemetry::traces::span::Span,
};

/// Webhooks that repeat an id with another payload.
const CONFLICTS: &str = "millrace_webhook_conflicts_total";
const ACCEPTED: &str = "millrace_webhooks_accepted_total";

/// Two writers keep the disk busy: one collects and sends a batch while the other waits for its commit. Measured without
/// HTTP and with 64 callers: 45,000 rows/s with one writer, 58,000 with two, and the same with three. Over HTTP, with a second
/// writer only while 64 calls wait, 202s were 1.94 of one-row transactions instead of 2.07, and their p99 at half that rate
/// 11.4 ms instead of 7.5.
const WRITES: Limits = Limits { writers: 2, size: 500, waiting: 20_000, wait: None };
/// Senders time out, and then send again: a webhook that would wait longer is refused at once.
const INGESTS: Limits = Limits { wait: Some(Duration::from_millis(500)), ..WRITES };
/// Requests with many webhooks that are recorded at the same time: enough for both writers. The others wait, so that a single
/// webhook never waits behind more than these.
const BATCHES_AT_ONCE: usize = 2;
/// Look-ups by id share statements, which limits the connections that many readers need. One statement runs at a time.
/// With two, each carried half as many ids: 64 readers got 22,000 look-ups/s instead of 42,000.
const READS: Limits = Limits { writers: 1, size: 500, waiting: 50_000, wait: None };

/// The feature. Clones share everything.
#[derive(Clone)]
pub struct Transactions {
    pool: Pool,
    ingests: Batch<Arc<Webhook>, ingest::IngestResult>,
    outcomes: Outcomes,
    /// See [`BATCHES_AT_ONCE`].
    batch_turns: Arc<Semaphore>,
    conflicts: Batch<Conflict, ()>,
    finds: Batch<String, Option<Transaction>>,
    settlements: Batch<SettleRequest, bool>,
    callbacks: Callbacks,
    processor: Arc<Processor>,
    /// `QUEUE_FAIR_BY=sender`
    fair_by_sender: bool,
    listener: Arc<SettlementListener>,
    stop: CancellationToken,
}

/// The counters of webhooks, looked up once: a look-up costs more than an addition.
#[derive(Clone)]
struct Outcomes {
    new: Counter,
    replayed: Counter,
    conflicts: Counter,
}

impl Transactions {
    /// Starts the feature; `stop` ends every wait.
    ///
    /// # Errors
    /// When the HTTP client for the processor or the one for callbacks cannot be built.
    pub fn start(pool: &Pool, queue: &Queue, config: &Config, stop: CancellationToken) -> Result<Self, Error> {
        describe_counter!(CONFLICTS, "Webhooks whose id was known with other content; what came first stands.");
        describe_counter!(ACCEPTED, "Webhooks by outcome: new, or replayed, which is known with the same content.");
        let outcomes = Outcomes {
            new: counter!(ACCEPTED, "outcome" => "new"),
            replayed: counter!(ACCEPTED, "outcome" => "replayed"),
            conflicts: counter!(CONFLICTS),
        };
        // A process that only enqueues exports the series of the queue as well.
        queue::metrics::zero(ProcessTransaction::NAME);
        let (delay, fair_by_sender) = (config.due_after(), config.fair_by_sender);
        let callbacks = Callbacks::start(pool, queue, &config.callbacks)?;
        let (pool, queue) = (pool.clone(), queue.clone());
        Ok(Self {
            ingests: Batch::start(INGESTS, {
                let pool = pool.clone();
                move |webhooks| ingest::ingest_batch(pool.clone(), queue.clone(), delay, fair_by_sender, webhooks)
            }),
            outcomes,
            batch_turns: Arc::new(Semaphore::new(BATCHES_AT_ONCE)),
            conflicts: Batch::start(conflicts::WRITES, {
                let pool = pool.clone();
                move |conflicts| store::conflicts::record(pool.clone(), conflicts)
            }),
            finds: Batch::start(READS, {
                let pool = pool.clone();
                move |ids| store::find(pool.clone(), ids)
            }),
            settlements: Batch::start(WRITES, {
                let (pool, callbacks) = (pool.clone(), callbacks.clone());
                move |requests| settle_batch(pool.clone(), callbacks.clone(), requests)
            }),
            callbacks,
            processor: Arc::new(Processor::new(config.processor.as_ref())?),
            fair_by_sender,
            listener: Arc::new(SettlementListener::default()),
            pool,
            stop,
        })
    }

    /// The same feature, whose look-ups use the sessions of another pool.
    pub(crate) fn reading(&self, pool: &Pool) -> Self {
        let finds = Batch::start(READS, {
            let pool = pool.clone();
            move |ids| store::find(pool.clone(), ids)
        });
        Self { finds, callbacks: self.callbacks.reading(pool), pool: pool.clone(), ..self.clone() }
    }

    /// The callbacks of settlements.
    pub fn callbacks(&self) -> &Callbacks {
        &self.callbacks
    }

    /// Listens for settlements until the stop. A process that serves [`Transactions::find_settled`] runs this once.
    pub async fn listen_for_settlements(&self, database: &Database) {
        self.listener.run(database, &self.pool, &self.stop).await;
    }

    /// Deletes old conflicts periodically until the stop. Every worker runs this.
    pub async fn delete_expired_conflicts(self, retention: Retention) {
        conflicts::run_retention(&self.pool, retention, &self.stop).await;
    }

    /// Deletes old callbacks periodically until the stop. Every worker runs this.
    pub async fn delete_expired_callbacks(self, retention: Retention) {
        self.callbacks.run_retention(retention, &self.stop).await;
    }

    /// Records a transaction and its job in one commit, or finds the transaction that was recorded before.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available. The same webhook can always be sent again.
    pub async fn ingest(&self, new: NewTransaction, origin: Origin, sender: Sender) -> Result<Ingested, Error> {
        self.record(Webhook { new, origin, sender }, async |webhook| self.ingests.call(webhook).await).await
    }

    /// Records a webhook by this call of [`Self::ingests`], then its conflict.
    async fn record(
        &self,
        mut webhook: Webhook,
        call: impl AsyncFnOnce(Arc<Webhook>) -> Result<ingest::IngestResult, Error>,
    ) -> Result<Ingested, Error> {
        let span = Span::internal("ingest");
        webhook.origin.traceparent = span.traceparent().or(webhook.origin.traceparent);
        let (ingested, conflict) = span.attach_to(call(Arc::new(webhook))).await??;
        if let Some(conflict) = conflict.filter(|_| !sabotage::planted(Bug::ConflictSwallowed)) {
            conflict.log();
            span.attach_to(self.conflicts.call(conflict)).await?;
        }
        drop(span);
        match &ingested {
            Ingested::New(_) => self.outcomes.new.increment(1),
            Ingested::Replayed(_) => self.outcomes.replayed.increment(1),
            Ingested::Conflict(..) => self.outcomes.conflicts.increment(1),
        }
        Ok(ingested)
    }

    /// Records many transactions as [`Self::ingest`] does. Returns one result for each, in their order. Of several with one
    /// id the first counts; the others are repetitions of it. It waits for its turn, so that batches delay single webhooks
    /// little.
    ///
    /// # Errors
    /// As [`Self::ingest`]. Some of them may be recorded then; all can be sent again.
    pub async fn ingest_all(
        &self,
        all: Vec<NewTransaction>,
        origin: &Origin,
        sender: Sender,
    ) -> Result<Vec<Ingested>, Error> {
        let turn = self.batch_turns.acquire().await;
        let _turn = turn.map_err(|error| Error::Internal(error.to_string()))?;
        let mut ids = HashSet::with_capacity(all.len());
        let (first, repeated): (Vec<usize>, Vec<usize>) =
            (0..all.len()).partition(|index| ids.insert(&*all[*index].transaction_id));
        let mut results: Vec<Option<Ingested>> = vec![None; all.len()];
        // A repetition waits for the first: written at the same time, it could come first.
        for part in [first, repeated] {
            let calls = part.iter().map(|index| {
                let webhook = Webhook { new: all[*index].clone(), origin: origin.clone(), sender: sender.clone() };
                self.record(webhook, async |webhook| self.ingests.call_admitted(webhook).await)
            });
            for (index, ingested) in part.iter().zip(join_all(calls).await) {
                results[*index] = Some(ingested?);
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// The current state of the transaction with this id.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn find(&self, transaction_id: &str) -> Result<Option<Transaction>, Error> {
        let mut found = self.finds.call(transaction_id.to_owned()).await?;
        if let Some(transaction) = &mut found
            && transaction.status == Status::Processing
            && transaction.remaining.is_zero()
            && let Some(seconds) = process::due_in(&self.pool, transaction.id).await?
        {
            // The first estimate has passed: the job was snoozed, and has a later due time.
            transaction.remaining = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        }
        Ok(found)
    }

    /// The state of the transaction with this internal id.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn get(&self, id: uuid::Uuid) -> Result<Option<Transaction>, Error> {
        store::get(&self.pool, id).await
    }

    /// The transactions that came with this `X-Correlation-Id`, or with this W3C trace (32 hexadecimal digits), at most 20
    /// of each.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn find_by_request(&self, id: &str) -> Result<Vec<Transaction>, Error> {
        let mut found = store::find_by_correlation(&self.pool, id).await?;
        if let Some(trace_id) = uuid::Uuid::parse_str(id).ok().filter(|_| id.len() == 32) {
            found.extend(store::find_by_trace(&self.pool, trace_id).await?);
        }
        Ok(found)
    }

    /// Waits until the transaction with this id is settled, `wait` is over, or the process stops. Returns its state
    /// then.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn find_settled(&self, transaction_id: &str, wait: Duration) -> Result<Option<Transaction>, Error> {
        let first = self.find(transaction_id).await?;
        let id = match &first {
            Some(transaction) if transaction.status == Status::Processing && !wait.is_zero() => transaction.id,
            _ => return Ok(first),
        };
        let waiter = self.listener.register(id);
        // The waiter only learns of settlements after its registration, so read the state again before waiting.
        let second = self.find(transaction_id).await?;
        if second.as_ref().is_none_or(|transaction| transaction.status != Status::Processing) {
            return Ok(second);
        }
        tokio::select! {
            () = waiter.wait() => {}
            () = tokio::time::sleep(wait) => {}
            () = self.stop.cancelled() => {}
        }
        self.find(transaction_id).await
    }

    /// One page of the transactions with `status` (all if `None`) after `cursor`, newest first. It has at most `limit`
    /// transactions, and at most 200.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn list(
        &self,
        status: Option<Status>,
        limit: u32,
        cursor: Option<Cursor>,
    ) -> Result<Vec<Transaction>, Error> {
        list::page(&self.pool, status, limit, cursor).await
    }

    /// Settles a transaction, unless it is already settled.
    async fn settle(&self, id: uuid::Uuid, settlement: Settlement) -> Result<(), Error> {
        self.settlements.call(SettleRequest { id, settlement }).await.map(|_changed| ())
    }
}

/// Settles those that are still processing. Their callbacks are enqueued in the same transaction, if there is a destination.
async fn settle_batch(pool: Pool, callbacks: Callbacks, requests: Vec<SettleRequest>) -> Result<Vec<bool>, Error> {
    if callbacks.is_configured() { callbacks.settle(requests).await } else { store::settle(pool, requests).await }
}
