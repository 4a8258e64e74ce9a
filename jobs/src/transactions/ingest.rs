//! Webhook ingestion: concurrent webhooks share one commit of all their rows and jobs.

use std::{collections::HashMap, time::Duration};

use super::{
    model::{Conflict, Ingested, Transaction},
    process, store,
    webhook::Webhook,
};
use queue::{Queue, enqueue};
use runtime::{
    db::Pool,
    error::Error,
    sabotage::{self, Bug},
};

/// The result for one webhook, with its conflict. The caller records the conflict: in this batch all webhooks would
/// wait for it.
pub(super) type IngestResult = Result<(Ingested, Option<Conflict>), Error>;

/// Records new transactions with their jobs, and compares repeated ones with the recorded row. Returns one result per
/// webhook, in order.
pub(super) async fn ingest_batch(
    pool: Pool,
    queue: Queue,
    delay: Duration,
    fair_by_sender: bool,
    webhooks: Vec<Webhook>,
) -> Result<Vec<IngestResult>, Error> {
    let mut tx = queue.begin().await?;
    let recorded = store::insert(&mut tx, &webhooks, delay).await?;
    let jobs = recorded.iter().map(|(index, transaction)| {
        let Webhook { origin, sender, .. } = &webhooks[*index];
        let job = process::job(transaction.id, delay)?.origin(origin.clone());
        Ok(if fair_by_sender { job.fair_key(sender.fair_key()) } else { job })
    });
    enqueue(&mut tx, &jobs.collect::<Result<Vec<_>, Error>>()?).await?;
    if sabotage::planted(Bug::AcknowledgeBeforeCommit) {
        tokio::spawn(tx.commit());
    } else {
        tx.commit().await?;
    }

    // Repeated ids, also within this batch, are only read, after the commit. If that fails, the new transactions stay
    // recorded.
    let repeated: Vec<String> = (0..webhooks.len())
        .filter(|index| !recorded.contains_key(index))
        .map(|index| webhooks[index].new.transaction_id.clone())
        .collect();
    let known = if repeated.is_empty() { Ok(Vec::new()) } else { store::find(pool.clone(), repeated).await };
    let (known, read_error) = match known {
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
                read_error.clone().unwrap_or_else(|| "the transaction was recorded, but cannot be read yet".into()),
            )),
        });
    }
    Ok(results)
}

/// Classifies a repeated webhook as a replay or a conflict.
fn compare(recorded: Transaction, webhook: Webhook) -> (Ingested, Option<Conflict>) {
    match Conflict::between(&recorded, webhook.new, webhook.origin.correlation_id) {
        Some(conflict) => (Ingested::Conflict(recorded, conflict.fields.clone()), Some(conflict)),
        None => (Ingested::Replayed(recorded), None),
    }
}
