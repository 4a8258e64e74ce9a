//! Transactions: webhooks recorded once, processed once in effect, and looked up by their senders.
//!
//! | file | what |
//! |---|---|
//! | [`model`] | a transaction and its parts |
//! | [`amount`] | exact decimals |
//! | [`signature`] | Standard Webhooks |
//! | `ingest` | concurrent webhooks share one commit of rows and jobs |
//! | `conflicts` | webhooks that contradict what is recorded |
//! | `list` | which way each list is read |
//! | `store` | all SQL |
//! | `processor` | who decides what becomes of a transaction: the simulation, or a service |
//! | [`process`] | the job |
//! | `watch` | one notification stream for everybody who waits |

pub mod amount;
mod config;
mod conflicts;
mod ingest;
mod list;
pub mod model;
pub mod process;
mod processor;
pub mod signature;
mod store;
mod watch;

use std::{sync::Arc, time::Duration};

pub use amount::{Amount, AmountError};
pub use config::{Config, ProcessorConfig};
use metrics::{counter, describe_counter};
pub use model::{Cursor, Ingested, NewTransaction, Status, Transaction};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use self::{
    conflicts::Conflict,
    ingest::Webhook,
    model::{Settlement, Settling},
    process::ProcessTransaction,
    processor::Processor,
    watch::Watch,
};
use crate::{
    boot::{
        db::{Database, answered},
        telemetry::traces::span::Span,
    },
    error::Error,
    queue::{
        self, Job, Origin, Queue, Retention,
        batch::{Batch, Limits},
    },
};

/// Webhooks that came with a known id and another payload.
const CONFLICTS: &str = "millrace_webhook_conflicts_total";
const ACCEPTED: &str = "millrace_webhooks_accepted_total";

/// Two writers keep the disk busy: one gathers and sends while the other waits for its commit. Measured at 64 callers:
/// 45,000 rows/s with one, 58,000 with two, no more with three.
const WRITES: Limits = Limits { writers: 2, size: 500, waiting: 20_000 };
/// Look-ups by id; sharing statements bounds the connections that any number of readers needs. One at a time: with two,
/// each carried half as many, and 64 readers got 22,000/s instead of 42,000.
const READS: Limits = Limits { writers: 1, size: 500, waiting: 50_000 };

/// The feature. Clones share everything.
#[derive(Clone)]
pub struct Transactions {
    pool: PgPool,
    ingests: Batch<Webhook, ingest::Written>,
    conflicts: Batch<Conflict, ()>,
    finds: Batch<String, Option<Transaction>>,
    settlements: Batch<Settling, bool>,
    processor: Arc<Processor>,
    watch: Arc<Watch>,
    stop: CancellationToken,
}

impl Transactions {
    /// Starts the feature; `stop` ends every wait.
    ///
    /// # Errors
    /// When the HTTP client for the processor cannot be built.
    pub fn start(pool: &PgPool, queue: &Queue, config: &Config, stop: CancellationToken) -> Result<Self, Error> {
        describe_counter!(CONFLICTS, "Webhooks whose id was known with other content; what came first stands.");
        counter!(CONFLICTS).absolute(0);
        describe_counter!(ACCEPTED, "Webhooks by outcome: new, or replayed, which is known with the same content.");
        for outcome in ["new", "replayed"] {
            counter!(ACCEPTED, "outcome" => outcome).absolute(0);
        }
        // Who only enqueues shows the queue's series as well.
        queue::metrics::zero(ProcessTransaction::NAME);
        let delay = config.due_after();
        let (pool, queue) = (pool.clone(), queue.clone());
        Ok(Self {
            ingests: Batch::start(WRITES, {
                let pool = pool.clone();
                move |webhooks| ingest::write(pool.clone(), queue.clone(), delay, webhooks)
            }),
            conflicts: Batch::start(conflicts::WRITES, {
                let pool = pool.clone();
                move |conflicts| store::conflicts::record(pool.clone(), conflicts)
            }),
            finds: Batch::start(READS, {
                let pool = pool.clone();
                move |ids| store::find(pool.clone(), ids)
            }),
            settlements: Batch::start(WRITES, {
                let pool = pool.clone();
                move |settlings| store::settle(pool.clone(), settlings)
            }),
            processor: Arc::new(Processor::new(config.processor.as_ref())?),
            watch: Arc::new(Watch::default()),
            pool,
            stop,
        })
    }

    /// Hears of settlements until the stop; a process that serves [`Transactions::find_settled`] runs this once.
    pub async fn watch_settlements(&self, database: &Database) {
        self.watch.run(database, &self.pool, &self.stop).await;
    }

    /// Deletes old conflicts until the stop; every worker runs this.
    pub async fn retain_conflicts(self, retention: Retention) {
        conflicts::retain(&self.pool, retention, &self.stop).await;
    }

    /// Records a transaction and its job in one commit, or finds the one recorded before.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot take it now. Sending it again is always safe.
    pub async fn ingest(&self, new: NewTransaction, mut origin: Origin) -> Result<Ingested, Error> {
        let span = Span::step("ingest");
        origin.traceparent = span.traceparent().or(origin.traceparent);
        let (ingested, conflict) = span.around(self.ingests.call(Webhook { new, origin })).await??;
        if let Some(conflict) = conflict {
            conflict.log();
            span.around(self.conflicts.call(conflict)).await?;
        }
        drop(span);
        match &ingested {
            Ingested::New(_) => counter!(ACCEPTED, "outcome" => "new").increment(1),
            Ingested::Replayed(_) => counter!(ACCEPTED, "outcome" => "replayed").increment(1),
            Ingested::Conflict(..) => counter!(CONFLICTS).increment(1),
        }
        Ok(ingested)
    }

    /// The transaction with this id, as it now stands.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot be asked now.
    pub async fn find(&self, transaction_id: &str) -> Result<Option<Transaction>, Error> {
        let mut found = self.finds.call(transaction_id.to_owned()).await?;
        if let Some(transaction) = &mut found
            && transaction.status == Status::Processing
            && transaction.remaining.is_zero()
            && let Some(seconds) = answered(process::due_in(&self.pool, transaction.id)).await?
        {
            // Past the first estimate: the job was put off, and knows until when.
            transaction.remaining = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        }
        Ok(found)
    }

    /// The transaction with this id, as soon as it is no longer processing, `wait` is over, or the process stops.
    ///
    /// # Errors
    /// As [`Transactions::find`].
    pub async fn find_settled(&self, transaction_id: &str, wait: Duration) -> Result<Option<Transaction>, Error> {
        let first = self.find(transaction_id).await?;
        let id = match &first {
            Some(transaction) if transaction.status == Status::Processing && !wait.is_zero() => transaction.id,
            _ => return Ok(first),
        };
        let interest = self.watch.interest(id);
        // Only what settles from now on is announced to us: look again before waiting.
        let second = self.find(transaction_id).await?;
        if second.as_ref().is_none_or(|transaction| transaction.status != Status::Processing) {
            return Ok(second);
        }
        tokio::select! {
            () = interest.settled() => {}
            () = tokio::time::sleep(wait) => {}
            () = self.stop.cancelled() => {}
        }
        self.find(transaction_id).await
    }

    /// One page, newest first, of those with `status` (all when `None`) after `cursor`; at most `limit`, and never more
    /// than 200.
    ///
    /// # Errors
    /// As [`Transactions::find`].
    pub async fn list(
        &self,
        status: Option<Status>,
        limit: u32,
        cursor: Option<Cursor>,
    ) -> Result<Vec<Transaction>, Error> {
        answered(list::page(&self.pool, status, limit, cursor)).await
    }

    /// Settles a transaction, unless it is settled already.
    async fn settle(&self, id: uuid::Uuid, settlement: Settlement) -> Result<(), Error> {
        self.settlements.call(Settling { id, settlement }).await.map(|_changed| ())
    }
}
