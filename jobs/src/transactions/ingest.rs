//! Webhook ingestion: concurrent webhooks share one commit of all their rows and jobs.

use std::{collections::HashMap, sync::Arc, time::Duration};

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
    webhooks: Vec<Arc<Webhook>>,
) -> Result<Vec<IngestResult>, Error> {
    let mut tx = queue.begin().await?;
    let recorded = store::insert(&mut tx, &webhooks, delay).await?;
    let new = webhooks.iter().zip(&recorded).filter_map(|(webhook, new)| Some((webhook, new.as_ref()?)));
    let jobs = new.map(|(webhook, new)| {
        let job = process::job(new.id, delay)?.origin(webhook.origin.clone());
        Ok(if fair_by_sender { job.fair_key(webhook.sender.fair_key()) } else { job })
    });
    enqueue(&mut tx, &jobs.collect::<Result<Vec<_>, Error>>()?).await?;
    if sabotage::planted(Bug::AcknowledgeBeforeCommit) {
        tokio::spawn(tx.commit());
    } else {
        tx.commit().await?;
    }

    // Repeated ids, also within this batch, are only read, after the commit. If that fails, the new transactions stay
    // recorded.
    let repeated = webhooks.iter().zip(&recorded).filter(|(_, new)| new.is_none());
    let repeated: Vec<String> = repeated.map(|(webhook, _)| webhook.new.transaction_id.clone()).collect();
    let known = if repeated.is_empty() { Ok(Vec::new()) } else { store::find(pool, repeated).await };
    let (known, read_error) = match known {
        Ok(found) => (found, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let known: HashMap<String, Transaction> =
        known.into_iter().flatten().map(|transaction| (transaction.transaction_id.clone(), transaction)).collect();

    let result = |(webhook, new): (Arc<Webhook>, Option<Transaction>)| match new {
        Some(transaction) => Ok((Ingested::New(transaction), None)),
        None => match known.get(&webhook.new.transaction_id) {
            Some(transaction) => Ok(compare(transaction.clone(), &webhook)),
            None => Err(Error::Unavailable(
                read_error.clone().unwrap_or_else(|| "the transaction was recorded, but cannot be read yet".into()),
            )),
        },
    };
    Ok(webhooks.into_iter().zip(recorded).map(result).collect())
}

/// Classifies a repeated webhook as a replay or a conflict.
fn compare(recorded: Transaction, webhook: &Webhook) -> (Ingested, Option<Conflict>) {
    match Conflict::between(&recorded, &webhook.new, webhook.origin.correlation_id.as_deref()) {
        Some(conflict) => (Ingested::Conflict(recorded, conflict.fields.clone()), Some(conflict)),
        None => (Ingested::Replayed(recorded), None),
    }
}
