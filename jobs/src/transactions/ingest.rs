//! Concurrent webhooks share one commit: their rows and their jobs, or nothing.

use std::{collections::HashMap, time::Duration};

use sqlx::PgPool;

use super::{
    conflicts::Conflict,
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

/// What became of a webhook, and the conflict that is yet to be recorded: not here, where every webhook of the batch would
/// wait for it.
pub type Written = Result<(Ingested, Option<Conflict>), Error>;

/// Records what is new, with its jobs, and compares the rest with what is recorded; one result per webhook, in order.
pub async fn write(pool: PgPool, queue: Queue, delay: Duration, webhooks: Vec<Webhook>) -> Result<Vec<Written>, Error> {
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
    let mut results = Vec::with_capacity(webhooks.len());
    for (index, webhook) in webhooks.into_iter().enumerate() {
        results.push(match (recorded.remove(&index), known.get(&webhook.new.transaction_id)) {
            (Some(transaction), _) => Ok((Ingested::New(transaction), None)),
            (None, Some(transaction)) => Ok(compare(transaction.clone(), webhook)),
            (None, None) => Err(Error::Unavailable(
                unreadable.clone().unwrap_or_else(|| "recorded a moment ago, but not yet readable".into()),
            )),
        });
    }
    Ok(results)
}

/// Tells a replay from a conflict.
fn compare(recorded: Transaction, webhook: Webhook) -> (Ingested, Option<Conflict>) {
    match Conflict::between(&recorded, webhook.new, webhook.origin.correlation_id) {
        Some(conflict) => (Ingested::Conflict(recorded, conflict.fields.clone()), Some(conflict)),
        None => (Ingested::Replayed(recorded), None),
    }
}
