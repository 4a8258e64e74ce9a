//! All SQL of transactions; conflicting webhooks are in `store/conflicts.rs`.

pub mod conflicts;

use std::{collections::HashMap, time::Duration};

use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    ingest::Webhook,
    model::{Settlement, Settling, Status, Transaction},
    watch,
};
use crate::{
    boot::pooler::{repeatable, within},
    error::{Error, causes},
};

/// A row as read.
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
    now: OffsetDateTime,
}

impl TryFrom<Row> for Transaction {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        // The table's own constraints hold both; a row that breaks them was written around us.
        let broken = |what: &str| Error::Internal(format!("transaction {}: stored {what} is not readable", row.id));
        let status = Status::parse(&row.status).ok_or_else(|| broken("status"))?;
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
        })
    }
}

/// Records the webhooks whose ids are new, in one statement; answers them by their place in `webhooks`.
///
/// In the order of their ids, so that two batches that share ids wait for each other and never in a circle.
///
/// Our ids are UUIDs of version 7, made from the same `now()` as `created_at`: whichever process records them and
/// whatever its clock says, they are in the order of creation, and a new one goes to the end of the primary key. 48 bits
/// are the milliseconds, and `rand_a` holds the microseconds of the last one in 4096ths (RFC 9562, section 6.2, method
/// 3). Both are cut off in integers, never rounded. The other half is random once for each statement and then counts its
/// rows: a random half for each row took 1.7 microseconds a row more, of 7.
pub async fn insert(
    connection: &mut PgConnection,
    webhooks: &[Webhook],
    delay: Duration,
) -> Result<HashMap<usize, Transaction>, Error> {
    let mut order: Vec<usize> = (0..webhooks.len()).collect();
    order.sort_by(|a, b| webhooks[*a].new.transaction_id.cmp(&webhooks[*b].new.transaction_id));
    let column =
        |value: fn(&Webhook) -> String| -> Vec<String> { order.iter().map(|index| value(&webhooks[*index])).collect() };
    let rows = sqlx::query!(
        r#"INSERT INTO transactions (id, transaction_id, source_account, destination_account, amount, currency,
                                     created_at, due_at)
           SELECT ((SELECT lpad(to_hex(((us / 1000) << 16) | x'7000'::int8 | (us % 1000 * 4096 / 1000)), 16, '0')
                           || substr(gen_random_uuid()::text, 20, 13)
                    FROM (SELECT (extract(epoch FROM now()) * 1000000)::int8 AS us) AS clock)
                   || to_hex(x'1000'::int8 + n))::uuid,
                  transaction_id, source_account, destination_account, amount, currency,
                  now(), now() + make_interval(secs => $6)
           FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]::numeric[], $5::text[]) WITH ORDINALITY
                AS new (transaction_id, source_account, destination_account, amount, currency, n)
           ON CONFLICT (transaction_id) DO NOTHING
           RETURNING id, transaction_id, created_at"#,
        &column(|w| w.new.transaction_id.clone()),
        &column(|w| w.new.source_account.clone()),
        &column(|w| w.new.destination_account.clone()),
        &column(|w| w.new.amount.to_string()),
        &column(|w| w.new.currency.clone()),
        delay.as_secs_f64(),
    )
    .fetch_all(within(connection))
    .await?;
    // Of those with one id the first was recorded, since the sort is stable: it must be the last to be put here.
    let places: HashMap<&str, usize> =
        order.iter().rev().map(|index| (&*webhooks[*index].new.transaction_id, *index)).collect();
    let recorded = rows.into_iter().filter_map(|row| {
        let place = *places.get(&*row.transaction_id)?;
        let new = webhooks[place].new.clone();
        let transaction = Transaction {
            id: row.id,
            transaction_id: new.transaction_id,
            source_account: new.source_account,
            destination_account: new.destination_account,
            amount: new.amount,
            currency: new.currency,
            status: Status::Processing,
            error: None,
            created_at: row.created_at,
            processed_at: None,
            remaining: delay,
        };
        Some((place, transaction))
    });
    Ok(recorded.collect())
}

/// The transactions with these ids, in the order of the ids.
pub async fn find(pool: PgPool, ids: Vec<String>) -> Result<Vec<Option<Transaction>>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id, transaction_id, source_account, destination_account, amount::text AS "amount!", currency, status,
                  error, created_at, processed_at,
                  due_at, clock_timestamp() AS "now!"
           FROM transactions WHERE transaction_id = ANY($1)"#,
        &ids,
    )
    .fetch_all(repeatable(&pool))
    .await?;
    let mut first: HashMap<&str, usize> = HashMap::with_capacity(ids.len());
    for (place, id) in ids.iter().enumerate() {
        first.entry(id).or_insert(place);
    }
    let mut found = vec![None; ids.len()];
    for row in rows {
        let transaction = Transaction::try_from(row)?;
        if let Some(place) = first.get(&*transaction.transaction_id) {
            found[*place] = Some(transaction);
        }
    }
    for (place, id) in ids.iter().enumerate() {
        // Asked for twice in one batch.
        if let Some(first) = first.get(&**id).filter(|first| **first != place) {
            found[place] = found[*first].clone();
        }
    }
    Ok(found)
}

/// The transaction with this id of ours.
pub async fn get(pool: &PgPool, id: Uuid) -> Result<Option<Transaction>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id, transaction_id, source_account, destination_account, amount::text AS "amount!", currency, status,
                  error, created_at, processed_at,
                  due_at, clock_timestamp() AS "now!"
           FROM transactions WHERE id = $1"#,
        id,
    )
    .fetch_optional(repeatable(pool))
    .await?;
    row.map(Transaction::try_from).transpose()
}

/// A page of those that meet a condition. The condition is text and not a parameter: partial indexes are for literals
/// only. The inner limit is for the plan: without a number it is made for a tenth of the table, which is rather sorted
/// than walked. It changes nothing for pages up to 200, as rows are only read when the outer limit asks for them.
macro_rules! newest {
    ($condition:tt, $pool:expr, $before:expr, $limit:expr) => {
        sqlx::query_as!(
            Row,
            r#"SELECT id, transaction_id, source_account, destination_account, amount::text AS "amount!", currency,
                      status, error, created_at, processed_at,
                      due_at, clock_timestamp() AS "now!"
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

/// A page, newest first, of those before an id: a walk down the primary key, or down the index of the failed ones.
pub async fn newest(
    pool: &PgPool,
    status: Option<Status>,
    before: Uuid,
    limit: u32,
) -> Result<Vec<Transaction>, Error> {
    let rows = match status {
        None => newest!("", pool, before, limit),
        Some(Status::Processing) => newest!("AND status = 'PROCESSING'", pool, before, limit),
        Some(Status::Processed) => newest!("AND status = 'PROCESSED'", pool, before, limit),
        Some(Status::Failed) => newest!("AND error IS NOT NULL", pool, before, limit),
    };
    rows?.into_iter().map(Transaction::try_from).collect()
}

/// Those with these ids of ours that are still processing, newest first.
pub async fn processing(pool: &PgPool, ids: &[Uuid]) -> Result<Vec<Transaction>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id, transaction_id, source_account, destination_account, amount::text AS "amount!", currency, status,
                  error, created_at, processed_at,
                  due_at, clock_timestamp() AS "now!"
           FROM transactions WHERE id = ANY($1) AND status = 'PROCESSING' ORDER BY id DESC"#,
        ids,
    )
    .fetch_all(repeatable(pool))
    .await?;
    rows.into_iter().map(Transaction::try_from).collect()
}

/// Settles those that are still processing, in one statement, and tells whoever waits for them; answers which changed.
pub async fn settle(pool: PgPool, settlings: Vec<Settling>) -> Result<Vec<bool>, Error> {
    let ids: Vec<Uuid> = settlings.iter().map(|settling| settling.id).collect();
    let (statuses, errors): (Vec<String>, Vec<Option<String>>) = settlings
        .into_iter()
        .map(|settling| match settling.settlement {
            Settlement::Processed => (Status::Processed.as_str().into(), None),
            Settlement::Failed(error) => (Status::Failed.as_str().into(), Some(error)),
        })
        .unzip();
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
    if !settled.is_empty() {
        // After the commit, and never in its way: a lost announcement is found by the watchers' own look.
        let payloads = watch::payloads(&settled);
        let announced =
            sqlx::query!("SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload", watch::CHANNEL, &payloads);
        if let Err(error) = announced.execute(repeatable(&pool)).await {
            tracing::debug!(error = causes(&error), "could not announce settled transactions");
        }
    }
    let settled: std::collections::HashSet<Uuid> = settled.into_iter().collect();
    Ok(ids.iter().map(|id| settled.contains(id)).collect())
}

/// Has a failed transaction processed again, from now on; any other stays as it is.
pub async fn revive(connection: &mut PgConnection, id: Uuid) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE transactions SET status = 'PROCESSING', error = NULL, processed_at = NULL, due_at = now()
         WHERE id = $1 AND status = 'FAILED'",
        id,
    )
    .execute(within(connection))
    .await?;
    Ok(())
}

/// Those of these transactions that are settled.
pub async fn settled(pool: &PgPool, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
    let settled = sqlx::query_scalar!("SELECT id FROM transactions WHERE id = ANY($1) AND status <> 'PROCESSING'", ids);
    Ok(settled.fetch_all(repeatable(pool)).await?)
}
