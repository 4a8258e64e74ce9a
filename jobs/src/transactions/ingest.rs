//! Webhook ingestion: concurrent webhooks share one commit of all their rows and jobs, and so do the rows of a batch.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    model::{Conflict, Ingested, IngestedRow, Transaction},
    process::ProcessTransaction,
    store::{
        self,
        insert::{Inserted, Insertion},
    },
    webhook::Webhook,
};
use queue::{Job, JobId, Origin, Queue};
use runtime::{
    db::Pool,
    error::Error,
    executor,
    sabotage::{self, Bug},
    telemetry::traces::span::{self, Span},
};

/// The result for one webhook, with its conflict. The caller records the conflict: in this batch all webhooks would
/// wait for it.
pub(super) type IngestResult = Result<(Ingested, Option<Conflict>), Error>;

/// The result for one row of a batch, with its conflict.
pub(super) type RowResult = (IngestedRow, Option<Conflict>);

/// Where and how webhooks are recorded.
#[derive(Clone)]
pub(super) struct Recorder {
    pub pool: Pool,
    pub queue: Queue,
    /// The time until a job is due.
    pub delay: Duration,
    pub fair_by_sender: bool,
}

/// What the database has for a webhook.
enum Recorded {
    /// The row that was inserted for it.
    New(Inserted),
    /// The transaction that was recorded before under its id.
    Known(Box<Transaction>),
}

impl Recorder {
    /// Records webhooks of different requests. Returns one result per webhook, in order.
    ///
    /// # Errors
    /// When none of them is known to be recorded.
    pub(super) async fn ingest(self, webhooks: Vec<Arc<Webhook>>) -> Result<Vec<IngestResult>, Error> {
        let webhooks: Vec<&Webhook> = webhooks.iter().map(Arc::as_ref).collect();
        let recorded = self.record(&webhooks).await?;
        let result = |(webhook, recorded): (&Webhook, Result<Recorded, Error>)| -> IngestResult {
            Ok(match recorded? {
                Recorded::New(inserted) => (Ingested::New(inserted.transaction(webhook, self.delay)), None),
                Recorded::Known(transaction) => match conflict(&transaction, webhook) {
                    Some(conflict) => (Ingested::Conflict(*transaction, conflict.fields.clone()), Some(conflict)),
                    None => (Ingested::Replayed(*transaction), None),
                },
            })
        };
        Ok(webhooks.into_iter().zip(recorded).map(result).collect())
    }

    /// Records batches, each in a commit of its own. Returns the results of each batch, one per row, in order.
    ///
    /// # Errors
    /// When a batch is not known to be recorded as a whole, or the database refuses all of its rows.
    pub(super) async fn ingest_batches(self, batches: Vec<Arc<Vec<Webhook>>>) -> Result<Vec<Vec<RowResult>>, Error> {
        let mut results = Vec::with_capacity(batches.len());
        for rows in batches {
            let rows: Vec<&Webhook> = rows.iter().collect();
            results.push(self.ingest_rows(&rows).await?);
        }
        Ok(results)
    }

    /// Records the rows of one batch in one commit. If the database refuses a row, it refuses the whole statement: the rows
    /// are then recorded in halves until that row is alone, as `queue::batch` does with single webhooks.
    ///
    /// In a database in UTF-8, validation lets no such row through, as `rows_at_the_limits_of_every_field_are_recorded` tests.
    /// Other encodings cannot store every text, and other programs may add constraints and triggers.
    async fn ingest_rows(&self, rows: &[&Webhook]) -> Result<Vec<RowResult>, Error> {
        let (mut results, mut parts) = (Vec::with_capacity(rows.len()), vec![rows]);
        let (mut refused, mut first_refusal) = (0, None);
        while let Some(part) = parts.pop() {
            match self.record(part).await {
                Ok(recorded) => {
                    for (webhook, recorded) in part.iter().zip(recorded) {
                        results.push(row_result(webhook, recorded?));
                    }
                }
                Err(Error::Internal(_)) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    // The first half is written next.
                    parts.extend([second, first]);
                }
                Err(Error::Internal(error)) => {
                    results.extend(part.iter().map(|_| (IngestedRow::Refused, None)));
                    refused += part.len();
                    first_refusal = first_refusal.or(part.first().map(|webhook| (*webhook, error)));
                }
                Err(error) => return Err(error),
            }
        }
        if let Some((webhook, error)) = first_refusal {
            if refused == rows.len() {
                // The fault is in the database rather than in the rows.
                return Err(Error::Internal(error));
            }
            tracing::error!(
                transaction_id = webhook.new.transaction_id,
                correlation_id = webhook.origin.correlation_id,
                refused,
                error,
                "the database refused rows of a batch; this is the first one",
            );
        }
        Ok(results)
    }

    /// Records new transactions with their jobs, and reads the recorded rows of repeated ones. Returns one result per
    /// webhook, in order.
    async fn record(&self, webhooks: &[&Webhook]) -> Result<Vec<Result<Recorded, Error>>, Error> {
        let spans = enqueue_spans(webhooks);
        let insertion = Insertion::new(webhooks, &spans);
        let inserted = if sabotage::planted(Bug::AcknowledgeBeforeCommit) {
            let mut tx = executor::begin(&self.pool).await?;
            let inserted = insertion.execute(&mut tx, self.delay, self.fair_by_sender).await?;
            tokio::spawn(tx.commit());
            inserted
        } else {
            insertion.execute(executor::once_on_live(&self.pool), self.delay, self.fair_by_sender).await?
        };
        self.queue.enqueued(ProcessTransaction::NAME, inserted.iter().flatten().count() as u64, self.delay);
        for (span, new) in spans.iter().zip(&inserted) {
            match new {
                Some(new) => span.record_message_id(|| JobId::from(new.id).to_string()),
                None => span.set_attribute("millrace.job.exists", true),
            }
        }

        // Repeated ids, also among these webhooks, are only read, after the commit. If that fails, the new transactions stay
        // recorded.
        let repeated = webhooks.iter().zip(&inserted).filter(|(_, new)| new.is_none());
        let repeated: Vec<String> = repeated.map(|(webhook, _)| webhook.new.transaction_id.clone()).collect();
        let known = if repeated.is_empty() { Ok(Vec::new()) } else { store::find(self.pool.clone(), repeated).await };
        let (known, read_error) = match known {
            Ok(found) => (found, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let known: HashMap<String, Transaction> =
            known.into_iter().flatten().map(|transaction| (transaction.transaction_id.clone(), transaction)).collect();

        let result = |(webhook, new): (&&Webhook, Option<Inserted>)| match new {
            Some(inserted) => Ok(Recorded::New(inserted)),
            None => match known.get(&webhook.new.transaction_id) {
                Some(transaction) => Ok(Recorded::Known(Box::new(transaction.clone()))),
                None => Err(Error::Unavailable(
                    read_error.clone().unwrap_or_else(|| "the transaction was recorded, but cannot be read yet".into()),
                )),
            },
        };
        Ok(webhooks.iter().zip(inserted).map(result).collect())
    }
}

/// The spans of enqueuing a job for each webhook; none while traces are not exported.
fn enqueue_spans(webhooks: &[&Webhook]) -> Vec<Span> {
    if !span::is_exporting() {
        return Vec::new();
    }
    let start = |origin: &Origin| {
        let span = |from: &str| Span::enqueue(ProcessTransaction::NAME, from, origin.correlation_id.as_deref());
        origin.traceparent.as_deref().map_or(Span::NONE, span)
    };
    webhooks.iter().map(|webhook| start(&webhook.origin)).collect()
}

/// The result for a row of a batch that is recorded.
fn row_result(webhook: &Webhook, recorded: Recorded) -> RowResult {
    match recorded {
        Recorded::New(_) => (IngestedRow::New, None),
        Recorded::Known(transaction) => match conflict(&transaction, webhook) {
            Some(conflict) => (IngestedRow::Conflict(conflict.fields.clone()), Some(conflict)),
            None => (IngestedRow::Replayed, None),
        },
    }
}

/// The conflict of a repeated webhook; `None` for a replay.
fn conflict(recorded: &Transaction, webhook: &Webhook) -> Option<Conflict> {
    Conflict::between(recorded, &webhook.new, webhook.origin.correlation_id.as_deref())
}
