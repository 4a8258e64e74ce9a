//! Concurrent webhooks share one commit: their rows and their jobs, or nothing.

use std::{collections::HashMap, time::Duration};

use sqlx::PgPool;

use super::{
    model::{Ingested, NewTransaction, Transaction},
    process, store,
};
use crate::{
    error::Error,
    queue::{Origin, Queue, enqueue},
};

/// A webhook on its way into the database.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub new: NewTransaction,
    pub origin: Origin,
}

/// Records what is new, with its jobs, and compares the rest with what is recorded; one answer per webhook, in order.
pub async fn write(
    pool: PgPool,
    queue: Queue,
    delay: Duration,
    webhooks: Vec<Webhook>,
) -> Result<Vec<Result<Ingested, Error>>, Error> {
    let mut tx = queue.begin().await?;
    let recorded = store::insert(&mut tx, &webhooks, delay).await?;
    let jobs = recorded.iter().map(|(index, transaction)| {
        process::job(transaction.id, delay).map(|job| job.origin(webhooks[*index].origin.clone()))
    });
    enqueue(&mut tx, &jobs.collect::<Result<Vec<_>, Error>>()?).await?;
    tx.commit().await?;

    // Repetitions, also those within this batch. They only read, so that what is new never waits for them in vain.
    let repeated: Vec<String> = (0..webhooks.len())
        .filter(|index| !recorded.contains_key(index))
        .map(|index| webhooks[index].new.transaction_id.clone())
        .collect();
    let known = if repeated.is_empty() { Ok(Vec::new()) } else { store::find(pool.clone(), repeated).await };
    let (known, unreadable) = match known {
        Ok(found) => (found, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let known: HashMap<String, Transaction> =
        known.into_iter().flatten().map(|transaction| (transaction.transaction_id.clone(), transaction)).collect();

    let mut recorded = recorded;
    let mut answers = Vec::with_capacity(webhooks.len());
    for (index, webhook) in webhooks.iter().enumerate() {
        answers.push(match (recorded.remove(&index), known.get(&webhook.new.transaction_id)) {
            (Some(transaction), _) => Ok(Ingested::New(transaction)),
            (None, Some(transaction)) => compare(&pool, transaction.clone(), webhook).await,
            (None, None) => Err(Error::Unavailable(
                unreadable.clone().unwrap_or_else(|| "recorded a moment ago, but not yet readable".into()),
            )),
        });
    }
    Ok(answers)
}

/// Tells a replay from a conflict, and keeps the latter for the operator.
async fn compare(pool: &PgPool, recorded: Transaction, webhook: &Webhook) -> Result<Ingested, Error> {
    let fields = recorded.differences(&webhook.new);
    if fields.is_empty() {
        return Ok(Ingested::Replayed(recorded));
    }
    store::record_conflict(pool, webhook, &fields).await?;
    tracing::warn!(
        transaction_id = recorded.transaction_id,
        fields = fields.join(", "),
        correlation_id = webhook.origin.correlation_id,
        "webhook repeats an id with another payload; the first one stands",
    );
    Ok(Ingested::Conflict(recorded, fields))
}
