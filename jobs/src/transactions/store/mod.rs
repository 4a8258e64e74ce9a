//! All SQL of transactions: `insert.rs` has that of new ones, `conflicts.rs` that of conflicting webhooks, and `replays.rs` that of
//! repeated ones.

/// Adds a batch of ids to a table of counts, with or without repetitions. The rows are locked in the order of the ids, so that
/// concurrent processes cannot deadlock.
macro_rules! count_by_id {
    ($table:tt, $ids:expr) => {
        sqlx::query!(
            "INSERT INTO "
                + $table
                + " (transaction_id, times)
         SELECT id, count(*) FROM unnest($1::text[]) AS given (id) GROUP BY id ORDER BY id
         ON CONFLICT (transaction_id)
         DO UPDATE SET times = "
                + $table
                + ".times + excluded.times, last_at = now()",
            $ids,
        )
    };
}

pub(super) mod conflicts;
pub(super) mod insert;
pub(super) mod replays;

use std::{collections::HashMap, sync::Arc, time::Duration};

use time::OffsetDateTime;
use uuid::Uuid;

use super::model::{SettleRequest, Settlement, Status, Transaction};
#[cfg(feature = "sabotage")]
use runtime::sabotage::{self, Bug};
use runtime::{
    db::Pool,
    error::{Error, causes},
    executor::{self, repeatable},
};

/// The notification channel. A payload is a list of ids, so that a batch of settlements needs only a few notifications.
pub(super) const SETTLED_CHANNEL: &str = "millrace_settled";
/// PostgreSQL limits a payload to less than 8,000 bytes; an id takes 33 with its comma.
const IDS_PER_PAYLOAD: usize = 200;

/// A row of a transaction, with the database's time.
struct Row {
    id: Uuid,
    transaction_id: String,
    source_account: String,
    destination_account: String,
    amount: String,
    currency: String,
    status: String,
    error: Option<String>,
    created_at: OffsetDateTime,
    processed_at: Option<OffsetDateTime>,
    due_at: OffsetDateTime,
    correlation_id: Option<String>,
    trace_id: Option<Uuid>,
    sender: Option<String>,
    now: OffsetDateTime,
}

impl TryFrom<Row> for Transaction {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        // The table's constraints guarantee that both are valid, unless the row was written by hand.
        let broken = |what: &str| Error::Internal(format!("transaction {}: stored {what} is not readable", row.id));
        let status: Status = row.status.parse().map_err(|_| broken("status"))?;
        Ok(Self {
            amount: row.amount.parse().map_err(|_| broken("amount"))?,
            remaining: match status {
                Status::Processing => Duration::try_from(row.due_at - row.now).unwrap_or_default(),
                Status::Processed | Status::Failed => Duration::ZERO,
            },
            id: row.id,
            transaction_id: row.transaction_id,
            source_account: row.source_account,
            destination_account: row.destination_account,
            currency: row.currency,
            status,
            error: row.error,
            created_at: row.created_at,
            processed_at: row.processed_at,
            correlation_id: row.correlation_id,
            trace_id: row.trace_id,
            sender: row.sender.map(Arc::from),
        })
    }
}

/// A query for the rows that meet a condition.
macro_rules! select_where {
    ($condition:tt, $value:expr) => {
        sqlx::query_as!(
            Row,
            r#"SELECT id, transaction_id, source_account, destination_account, amount::text AS "amount!", currency, status,
                  error, created_at, processed_at,
                  due_at, correlation_id, trace_id, sender, clock_timestamp() AS "now!"
           FROM transactions WHERE "#
                + $condition,
            $value,
        )
    };
}

/// The transactions with these sender's ids, in the order of the ids.
pub(super) async fn find(pool: Pool, ids: Vec<String>) -> Result<Vec<Option<Transaction>>, Error> {
    let rows = select_where!("transaction_id = ANY($1)", &ids).fetch_all(repeatable(&pool)).await?;
    let mut first: HashMap<&str, usize> = HashMap::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        first.entry(id).or_insert(index);
    }
    let mut found = vec![None; ids.len()];
    for row in rows {
        let transaction = Transaction::try_from(row)?;
        if let Some(index) = first.get(&*transaction.transaction_id) {
            found[*index] = Some(transaction);
        }
    }
    for (index, id) in ids.iter().enumerate() {
        // A duplicate within the batch gets a copy.
        if let Some(first) = first.get(&**id).filter(|first| **first != index) {
            found[index] = found[*first].clone();
        }
    }
    Ok(found)
}

/// The transaction with this internal id.
pub(super) async fn get(pool: &Pool, id: Uuid) -> Result<Option<Transaction>, Error> {
    let row = select_where!("id = $1", id).fetch_optional(repeatable(pool)).await?;
    row.map(Transaction::try_from).transpose()
}

/// At most 20 transactions with this correlation id; a sender may have given one id to many.
pub(super) async fn find_by_correlation(pool: &Pool, correlation_id: &str) -> Result<Vec<Transaction>, Error> {
    let rows = select_where!("correlation_id = $1 LIMIT 20", correlation_id).fetch_all(repeatable(pool)).await?;
    rows.into_iter().map(Transaction::try_from).collect()
}

/// At most 20 transactions of this trace.
pub(super) async fn find_by_trace(pool: &Pool, trace_id: Uuid) -> Result<Vec<Transaction>, Error> {
    let rows = select_where!("trace_id = $1 LIMIT 20", trace_id).fetch_all(repeatable(pool)).await?;
    rows.into_iter().map(Transaction::try_from).collect()
}

/// A page of the transactions that meet a condition. The condition is text, not a parameter, because the planner uses a
/// partial index only for a literal. The inner limit helps the planner. For an unknown limit it expects a tenth of the
/// table, and sorts instead of scanning the index. It does not affect pages up to 200, since the outer limit stops the
/// reading of rows.
macro_rules! find_newest {
    ($condition:tt, $pool:expr, $before:expr, $limit:expr) => {
        sqlx::query_as!(
            Row,
            r#"SELECT id, transaction_id, source_account, destination_account, amount::text AS "amount!", currency,
                      status, error, created_at, processed_at,
                      due_at, correlation_id, trace_id, sender, clock_timestamp() AS "now!"
               FROM (SELECT * FROM transactions WHERE id < $1 "#
                + $condition
                + " ORDER BY id DESC LIMIT 200) AS page ORDER BY id DESC LIMIT $2",
            $before,
            i64::from($limit),
        )
        .fetch_all(repeatable($pool))
        .await
    };
}

/// A page of the transactions before an id, newest first. It scans the primary key backwards, or the partial index of
/// failed ones.
pub(super) async fn find_newest(
    pool: &Pool,
    status: Option<Status>,
    before: Uuid,
    limit: u32,
) -> Result<Vec<Transaction>, Error> {
    let rows = match status {
        None => find_newest!("", pool, before, limit),
        Some(Status::Processing) => find_newest!("AND status = 'PROCESSING'", pool, before, limit),
        Some(Status::Processed) => find_newest!("AND status = 'PROCESSED'", pool, before, limit),
        Some(Status::Failed) => find_newest!("AND error IS NOT NULL", pool, before, limit),
    };
    rows?.into_iter().map(Transaction::try_from).collect()
}

/// Those with these internal ids that are still processing, newest first.
pub(super) async fn find_processing(pool: &Pool, ids: &[Uuid]) -> Result<Vec<Transaction>, Error> {
    let rows = select_where!("id = ANY($1) AND status = 'PROCESSING' ORDER BY id DESC", ids)
        .fetch_all(repeatable(pool))
        .await?;
    rows.into_iter().map(Transaction::try_from).collect()
}

/// The ids, new states and errors of settlements.
pub(super) fn columns(requests: Vec<SettleRequest>) -> (Vec<Uuid>, Vec<String>, Vec<Option<String>>) {
    let ids: Vec<Uuid> = requests.iter().map(|request| request.id).collect();
    let (statuses, errors): (Vec<String>, Vec<Option<String>>) = requests
        .into_iter()
        .map(|request| match request.settlement {
            Settlement::Processed => (Status::Processed.into_str().into(), None),
            Settlement::Failed(error) => (Status::Failed.into_str().into(), Some(error)),
        })
        .unzip();
    (ids, statuses, errors)
}

/// Settles those that are still processing, in one statement, and notifies their waiters. Returns which ones changed.
///
/// With a destination of callbacks, `callbacks::store::settle` does the same and records the callbacks.
pub(super) async fn settle(pool: Pool, requests: Vec<SettleRequest>) -> Result<Vec<bool>, Error> {
    let (ids, statuses, errors) = columns(requests);
    #[cfg(feature = "sabotage")]
    if sabotage::planted(Bug::SettlementNotConditional) {
        let reset =
            "UPDATE transactions SET status = 'PROCESSING', error = NULL, processed_at = NULL WHERE id = ANY($1)";
        sqlx::query(reset).bind(&ids).execute(repeatable(&pool)).await?;
    }
    let settled = sqlx::query_scalar!(
        "UPDATE transactions AS transaction
         SET status = settled.status, error = settled.error, processed_at = now()
         FROM unnest($1::uuid[], $2::text[], $3::text[]) AS settled (id, status, error)
         WHERE transaction.id = settled.id AND transaction.status = 'PROCESSING'
         RETURNING transaction.id",
        &ids,
        &statuses,
        &errors as &[Option<String>],
    )
    .fetch_all(repeatable(&pool))
    .await?;
    notify_settled(&pool, &settled).await;
    let settled: std::collections::HashSet<Uuid> = settled.into_iter().collect();
    Ok(ids.iter().map(|id| settled.contains(id)).collect())
}

/// Notifies those who wait for these transactions. Called after the commit, so that a failure cannot undo it: the
/// listeners' polls find what was not announced.
pub(super) async fn notify_settled(pool: &Pool, settled: &[Uuid]) {
    if settled.is_empty() {
        return;
    }
    let payloads = payloads(settled);
    let notification =
        sqlx::query!("SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload", SETTLED_CHANNEL, &payloads);
    if let Err(error) = notification.execute(repeatable(pool)).await {
        tracing::debug!(error = causes(&error), "could not notify the waiters of settled transactions");
    }
}

/// When and why a transaction had failed.
pub(super) struct FailedBefore {
    pub at: OffsetDateTime,
    pub error: String,
}

/// Resets a failed transaction to processing, due now. Returns how it had failed. In any other state it does nothing, and returns
/// `None`.
pub(super) async fn reset_failed(tx: &mut executor::Transaction, id: Uuid) -> Result<Option<FailedBefore>, Error> {
    let before = sqlx::query_as!(
        FailedBefore,
        r#"UPDATE transactions AS reset SET status = 'PROCESSING', error = NULL, processed_at = NULL, due_at = now()
           FROM (SELECT id, processed_at, error FROM transactions WHERE id = $1 AND status = 'FAILED' FOR UPDATE) AS failed
           WHERE reset.id = failed.id
           RETURNING failed.processed_at AS "at!", failed.error AS "error!""#,
        id,
    );
    Ok(before.fetch_optional(&mut *tx).await?)
}

/// Those of these transactions that are settled.
pub(super) async fn find_settled(pool: &Pool, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
    let settled = sqlx::query_scalar!("SELECT id FROM transactions WHERE id = ANY($1) AND status <> 'PROCESSING'", ids);
    Ok(settled.fetch_all(repeatable(pool)).await?)
}

/// The notification payloads for these ids.
fn payloads(ids: &[Uuid]) -> Vec<String> {
    let text = |ids: &[Uuid]| ids.iter().map(|id| id.simple().to_string()).collect::<Vec<_>>().join(",");
    ids.chunks(IDS_PER_PAYLOAD).map(text).collect()
}
