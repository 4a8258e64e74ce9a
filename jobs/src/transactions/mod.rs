//! Transactions: records each webhook once, processes it effectively once, and lets senders look it up.

pub mod amount;
pub mod callbacks;
mod config;
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

use std::{sync::Arc, time::Duration};

pub use amount::{Amount, AmountError};
pub use config::{Config, ProcessorConfig};
use futures_util::future::join_all;
use metrics::{Counter, counter, describe_counter};
pub use model::{Cursor, Ingested, IngestedRow, NewTransaction, Status, Transaction};
pub use sender::Sender;
use tokio_util::sync::CancellationToken;

use self::{
    callbacks::Callbacks,
    ingest::Recorder,
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
/// HTTP and with 64 callers: 45,000 rows/s with one writer, 58,000 with two, and the same with three.
const WRITES: Limits = Limits { writers: 2, size: 500, waiting: 20_000, wait: None };
/// Senders time out, and then send again: a webhook that would wait longer is refused at once, and has room when it comes
/// back at the time of its `Retry-After`.
const INGESTS: Limits = Limits { wait: Some(Duration::from_millis(500)), ..WRITES };
/// Requests with many webhooks. Each is a commit of its own, without a call for each row. Two are recorded at the same time, for
/// the same reason as above; the others wait, so that single webhooks share the database with these two only.
const BATCHES: Limits = Limits { size: 1, ..WRITES };
/// Repeated ids, with the same payload or another one: in batches of their own, so that no other webhook waits for them. One
/// writer: with two, a commit could wait for a row lock that the other one holds on the same id.
const REPEATS: Limits = Limits { writers: 1, ..WRITES };
/// Look-ups by id share statements, which limits the connections that many readers need. One statement runs at a time; with two,
/// 64 readers got no more look-ups per second.
const READS: Limits = Limits { writers: 1, size: 500, waiting: 50_000, wait: None };

/// The feature. Clones share everything.
#[derive(Clone)]
pub struct Transactions {
    pool: Pool,
    ingests: Batch<Arc<Webhook>, ingest::IngestResult>,
    /// Requests with many webhooks.
    batches: Batch<Arc<Vec<Webhook>>, Vec<ingest::RowResult>>,
    outcomes: Outcomes,
    conflicts: Batch<Conflict, ()>,
    /// The ids of repeated webhooks.
    replays: Batch<String, ()>,
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
        let recorder = Recorder { pool: pool.clone(), queue: queue.clone(), delay, fair_by_sender };
        Ok(Self {
            ingests: Batch::start(INGESTS, {
                let recorder = recorder.clone();
                move |webhooks| recorder.clone().ingest(webhooks)
            }),
            batches: Batch::start(BATCHES, move |batches| recorder.clone().ingest_batches(batches)),
            outcomes,
            conflicts: Batch::on_pool(REPEATS, pool, store::conflicts::record),
            replays: Batch::on_pool(REPEATS, pool, store::replays::count),
            finds: Batch::on_pool(READS, pool, store::find),
            settlements: Batch::start(WRITES, {
                let (pool, callbacks) = (pool.clone(), callbacks.clone());
                move |requests| settle_batch(pool.clone(), callbacks.clone(), requests)
            }),
            callbacks,
            processor: Arc::new(Processor::new(config.processor.as_ref())?),
            fair_by_sender,
            listener: Arc::new(SettlementListener::default()),
            pool: pool.clone(),
            stop,
        })
    }

    /// The same feature, whose look-ups use the sessions of another pool.
    pub(crate) fn reading(&self, pool: &Pool) -> Self {
        let finds = Batch::on_pool(READS, pool, store::find);
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
        let delete = |after, age| store::conflicts::delete_expired(&self.pool, after, age);
        retention::run(retention, &self.stop, "webhook conflicts", delete).await;
    }

    /// Deletes the counts of old replays of webhooks periodically until the stop. Every worker runs this.
    pub async fn delete_expired_replays(self, retention: Retention) {
        let delete = |after, age| store::replays::delete_expired(&self.pool, after, age);
        retention::run(retention, &self.stop, "webhook replays", delete).await;
    }

    /// Deletes old callbacks periodically until the stop. Every worker runs this.
    pub async fn delete_expired_callbacks(self, retention: Retention) {
        self.callbacks.run_retention(retention, &self.stop).await;
    }

    /// Records a transaction and its job in one commit, or finds the transaction that was recorded before.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available, [`Error::Overloaded`] when the webhook would wait too long.
    /// The same webhook can always be sent again.
    pub async fn ingest(&self, new: NewTransaction, mut origin: Origin, sender: Sender) -> Result<Ingested, Error> {
        let span = Span::internal("ingest");
        origin.traceparent = span.traceparent().or(origin.traceparent);
        let webhook = Arc::new(Webhook { new, origin: Arc::new(origin), sender });
        let call = self.ingests.call_or_refuse(&webhook.new.transaction_id, webhook.clone());
        let (ingested, conflict) = span.attach_to(call).await??;
        if let Some(conflict) = conflict {
            span.attach_to(self.record_conflict(conflict)).await?;
        }
        if let Ingested::Replayed(transaction) = &ingested {
            self.count_replay(transaction.transaction_id.clone());
        }
        drop(span);
        match &ingested {
            Ingested::New(_) => self.outcomes.new.increment(1),
            Ingested::Replayed(_) => self.outcomes.replayed.increment(1),
            Ingested::Conflict(..) => self.outcomes.conflicts.increment(1),
        }
        Ok(ingested)
    }

    /// Records many transactions as [`Self::ingest`] does, in one commit unless the database refuses one of them. Returns one
    /// result for each, in their order. Of several with one id the first counts; the others are repetitions of it. It waits
    /// for its turn, so that batches delay single webhooks little.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available. Then all can be sent again, also if they are recorded.
    /// [`Error::Internal`] when it refuses all of them.
    pub async fn ingest_all(
        &self,
        all: Vec<NewTransaction>,
        mut origin: Origin,
        sender: Sender,
    ) -> Result<Vec<IngestedRow>, Error> {
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let span = Span::internal("ingest");
        origin.traceparent = span.traceparent().or(origin.traceparent);
        let origin = Arc::new(origin);
        let webhook = |new| Webhook { new, origin: origin.clone(), sender: sender.clone() };
        let webhooks: Arc<Vec<Webhook>> = Arc::new(all.into_iter().map(webhook).collect());
        let results = span.attach_to(self.batches.call(webhooks.clone())).await?;
        let (rows, conflicts): (Vec<IngestedRow>, Vec<Option<Conflict>>) = results.into_iter().unzip();
        let conflicts = conflicts.into_iter().flatten().map(|conflict| self.record_conflict(conflict));
        for recorded in span.attach_to(join_all(conflicts)).await {
            recorded?;
        }
        for (webhook, _) in webhooks.iter().zip(&rows).filter(|(_, row)| matches!(row, IngestedRow::Replayed)) {
            self.count_replay(webhook.new.transaction_id.clone());
        }
        drop(span);
        let count = |is_counted: fn(&IngestedRow) -> bool| rows.iter().filter(|row| is_counted(row)).count() as u64;
        self.outcomes.new.increment(count(|row| matches!(row, IngestedRow::New)));
        self.outcomes.replayed.increment(count(|row| matches!(row, IngestedRow::Replayed)));
        self.outcomes.conflicts.increment(count(|row| matches!(row, IngestedRow::Conflict(_))));
        Ok(rows)
    }

    async fn record_conflict(&self, conflict: Conflict) -> Result<(), Error> {
        if sabotage::planted(Bug::ConflictSwallowed) {
            return Ok(());
        }
        conflict.log();
        self.conflicts.call(conflict).await
    }

    /// Counts a webhook that repeats an id with the same payload. Its response does not wait for that, and a failure is only
    /// logged: the count is for operators, and the transaction is recorded.
    fn count_replay(&self, transaction_id: String) {
        let replays = self.replays.clone();
        tokio::spawn(async move {
            if let Err(error) = replays.call(transaction_id).await {
                tracing::debug!(%error, "could not count a repeated webhook");
            }
        });
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

    /// Settles a transaction. Returns `false` if it is already settled.
    async fn settle(&self, id: uuid::Uuid, settlement: Settlement) -> Result<bool, Error> {
        self.settlements.call(SettleRequest { id, settlement }).await
    }
}

/// Settles those that are still processing. Their callbacks are enqueued in the same transaction, if there is a destination.
async fn settle_batch(pool: Pool, callbacks: Callbacks, requests: Vec<SettleRequest>) -> Result<Vec<bool>, Error> {
    if callbacks.is_configured() { callbacks.settle(requests).await } else { store::settle(pool, requests).await }
}
