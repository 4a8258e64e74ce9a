//! All SQL of callbacks.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::model::{DestinationProblem, MAX_WAITING};
use crate::transactions::{
    model::NewTransaction,
    retention::{STEP_SIZE, Step},
};
use runtime::{
    db::Pool,
    error::Error,
    executor::{Transaction, repeatable, transactional},
};

/// The most destinations with a problem that are listed.
const MAX_PROBLEMS: i64 = 1000;
/// The most callbacks of one transaction that its timeline shows.
const MAX_OF_TRANSACTION: i64 = 100;

/// What settles transactions, column by column.
pub(super) struct Settlements<'a> {
    pub ids: &'a [Uuid],
    pub statuses: &'a [String],
    pub errors: &'a [Option<String>],
}

/// A transaction that was settled, and its callback, if its sender has a destination.
pub(super) struct Settled {
    pub transaction: Uuid,
    pub settled_at: OffsetDateTime,
    pub error: Option<String>,
    pub correlation_id: Option<String>,
    pub callback: Option<Uuid>,
    pub destination: Option<String>,
    pub kind: Option<String>,
}

/// Settles the transactions that are still processing, and records the callback of each. `named` are the senders with a
/// destination of their own; `has_common` says whether all others have one.
pub(super) async fn settle(
    tx: &mut Transaction,
    settlements: Settlements<'_>,
    named: &[String],
    has_common: bool,
) -> Result<Vec<Settled>, Error> {
    let settled = sqlx::query_as!(
        Settled,
        r#"WITH settled AS (
               UPDATE transactions AS transaction
               SET status = new.status, error = new.error, processed_at = now()
               FROM unnest($1::uuid[], $2::text[], $3::text[]) AS new (id, status, error)
               WHERE transaction.id = new.id AND transaction.status = 'PROCESSING'
               RETURNING transaction.id, transaction.status, transaction.error, transaction.processed_at,
                         transaction.correlation_id,
                         CASE WHEN transaction.sender = ANY($4::text[]) THEN transaction.sender
                              WHEN $5::bool THEN '' END AS destination),
           recorded AS (
               INSERT INTO callbacks (id, transaction_id, destination, kind)
               SELECT uuid_v7(), id, destination,
                      CASE status WHEN 'PROCESSED' THEN 'transaction.processed' ELSE 'transaction.failed' END
               FROM settled WHERE destination IS NOT NULL
               RETURNING id, transaction_id, destination, kind)
           SELECT settled.id AS transaction, settled.processed_at AS "settled_at!", settled.error, settled.correlation_id,
                  recorded.id AS "callback?", recorded.destination AS "destination?", recorded.kind AS "kind?"
           FROM settled LEFT JOIN recorded ON recorded.transaction_id = settled.id"#,
        settlements.ids,
        settlements.statuses,
        settlements.errors as &[Option<String>],
        named,
        has_common,
    );
    Ok(settled.fetch_all(&mut *tx).await?)
}

/// A callback, as its job needs it.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    /// The columns of its transaction that never change.
    pub new: NewTransaction,
    pub created_at: OffsetDateTime,
    pub is_delivered: bool,
    /// Since when and why its destination is disabled.
    pub disabled: Option<(OffsetDateTime, String)>,
    /// The database's time.
    pub now: OffsetDateTime,
}

/// Reads the callbacks with these ids, in their order. Each transaction is looked up by its primary key.
pub(super) async fn load(pool: Pool, ids: Vec<Uuid>) -> Result<Vec<Option<Loaded>>, Error> {
    let rows = sqlx::query!(
        r#"SELECT callbacks.id, delivered_at IS NOT NULL AS "is_delivered!", disabled_at AS "disabled_at?",
                  disabled_because AS "disabled_because?", clock_timestamp() AS "now!", transaction.transaction_id AS "transaction_id!",
                  transaction.source_account AS "source_account!", transaction.destination_account AS "destination_account!",
                  transaction.amount::text AS "amount!", transaction.currency AS "currency!",
                  transaction.created_at AS "created_at!"
           FROM callbacks
           CROSS JOIN LATERAL (SELECT * FROM transactions WHERE id = callbacks.transaction_id LIMIT 1) AS transaction
           LEFT JOIN callback_destinations ON name = destination
           WHERE callbacks.id = ANY($1)"#,
        &ids,
    )
    .fetch_all(repeatable(&pool))
    .await?;
    let mut found = vec![None; ids.len()];
    for row in rows {
        let broken = |_| Error::Internal(format!("transaction of callback {}: stored amount is not readable", row.id));
        let loaded = Loaded {
            new: NewTransaction {
                amount: row.amount.parse().map_err(broken)?,
                transaction_id: row.transaction_id,
                source_account: row.source_account,
                destination_account: row.destination_account,
                currency: row.currency,
            },
            created_at: row.created_at,
            is_delivered: row.is_delivered,
            disabled: row.disabled_at.zip(row.disabled_because),
            now: row.now,
        };
        for (place, _) in found.iter_mut().zip(&ids).filter(|(_, id)| **id == row.id) {
            *place = Some(loaded.clone());
        }
    }
    Ok(found)
}

/// A delivered callback, and the status of the response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub id: Uuid,
    pub status: u16,
}

/// Records deliveries. Their destinations are no longer failing.
pub(super) async fn record_deliveries(pool: Pool, deliveries: Vec<Delivery>) -> Result<Vec<()>, Error> {
    let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.id).collect();
    let statuses: Vec<i32> = deliveries.iter().map(|delivery| delivery.status.into()).collect();
    // The rows of destinations are locked in one order, so that two workers cannot deadlock.
    sqlx::query!(
        "WITH delivered AS (
             UPDATE callbacks
             SET attempts = attempts + 1, delivered_at = coalesce(delivered_at, now()), gave_up_at = NULL,
                 last_status = new.status, last_error = NULL
             FROM unnest($1::uuid[], $2::int[]) AS new (id, status)
             WHERE callbacks.id = new.id
             RETURNING destination),
         recovered AS (
             SELECT name FROM callback_destinations
             WHERE failing_since IS NOT NULL AND name IN (SELECT destination FROM delivered)
             ORDER BY name FOR UPDATE)
         UPDATE callback_destinations SET failing_since = NULL WHERE name IN (SELECT name FROM recovered)",
        &ids,
        &statuses,
    )
    .execute(transactional(&pool))
    .await?;
    Ok(vec![(); deliveries.len()])
}

/// Records a failed try. Returns whether the destination has failed for longer than `limit` without a success.
///
/// A destination that is failing already is not written again: its row would be the bottleneck of all failures. One that fails
/// since a later time does so since now: the server's clock has gone back.
pub(super) async fn record_failure(
    pool: &Pool,
    id: Uuid,
    destination: &str,
    status: Option<u16>,
    error: &str,
    limit: Duration,
) -> Result<bool, Error> {
    let is_over = sqlx::query_scalar!(
        r#"WITH tried AS (
               UPDATE callbacks SET attempts = attempts + 1, last_status = $3, last_error = $4
               WHERE id = $1 AND delivered_at IS NULL),
           failing AS (
               SELECT failing_since FROM callback_destinations WHERE name = $2 AND failing_since <= now()),
           begun AS (
               INSERT INTO callback_destinations AS known (name, failing_since)
               SELECT $2, now() WHERE NOT EXISTS (SELECT FROM failing)
               ON CONFLICT (name) DO UPDATE SET failing_since = least(known.failing_since, excluded.failing_since))
           SELECT coalesce((SELECT failing_since < now() - make_interval(secs => $5) FROM failing), false) AS "is_over!""#,
        id,
        destination,
        status.map(i32::from),
        error,
        limit.as_secs_f64(),
    );
    Ok(is_over.fetch_one(transactional(pool)).await?)
}

/// Disables a destination. Returns `false` if it is disabled already.
pub(super) async fn disable(tx: &mut Transaction, destination: &str, because: &str) -> Result<bool, Error> {
    let disabled = sqlx::query_scalar!(
        "INSERT INTO callback_destinations AS known (name, disabled_at, disabled_because) VALUES ($1, now(), $2)
         ON CONFLICT (name) DO UPDATE SET disabled_at = excluded.disabled_at, disabled_because = excluded.disabled_because
         WHERE known.disabled_at IS NULL
         RETURNING name",
        destination,
        because,
    );
    Ok(disabled.fetch_optional(&mut *tx).await?.is_some())
}

/// Enables a destination. Returns `false` if it is not disabled.
pub(super) async fn enable(tx: &mut Transaction, destination: &str) -> Result<bool, Error> {
    let enabled = sqlx::query!(
        "UPDATE callback_destinations SET disabled_at = NULL, disabled_because = NULL, failing_since = NULL
         WHERE name = $1 AND disabled_at IS NOT NULL",
        destination,
    );
    Ok(enabled.execute(&mut *tx).await?.rows_affected() > 0)
}

/// Records that a callback is given up. Returns `false` if it is delivered, or given up already.
pub(super) async fn give_up(pool: &Pool, id: Uuid, reason: &str) -> Result<bool, Error> {
    let given_up = sqlx::query!(
        "UPDATE callbacks SET gave_up_at = now(), last_error = $2
         WHERE id = $1 AND delivered_at IS NULL AND gave_up_at IS NULL",
        id,
        reason,
    );
    Ok(given_up.execute(repeatable(pool)).await?.rows_affected() > 0)
}

/// Records that a callback is sent again.
pub(super) async fn resume(tx: &mut Transaction, id: Uuid) -> Result<(), Error> {
    sqlx::query!("UPDATE callbacks SET gave_up_at = NULL WHERE id = $1", id).execute(&mut *tx).await?;
    Ok(())
}

/// A row of a destination.
pub(super) struct DestinationRow {
    pub name: String,
    pub failing_since: Option<OffsetDateTime>,
    pub disabled_at: Option<OffsetDateTime>,
    pub disabled_because: Option<String>,
    pub waiting: i64,
}

/// Lists these destinations, and all others with a problem, by name.
pub(super) async fn destinations(pool: &Pool, names: &[String]) -> Result<Vec<DestinationRow>, Error> {
    let rows = sqlx::query_as!(
        DestinationRow,
        r#"SELECT listed.name AS "name!", known.failing_since AS "failing_since?", known.disabled_at AS "disabled_at?",
                  known.disabled_because AS "disabled_because?",
                  (SELECT count(*) FROM (
                       SELECT FROM callbacks
                       WHERE destination = listed.name AND delivered_at IS NULL AND gave_up_at IS NULL LIMIT $2
                   ) AS waiting) AS "waiting!"
           FROM (SELECT name FROM unnest($1::text[]) AS name
                 UNION SELECT name FROM callback_destinations WHERE failing_since IS NOT NULL OR disabled_at IS NOT NULL)
                AS listed
           LEFT JOIN callback_destinations AS known ON known.name = listed.name
           ORDER BY listed.name"#,
        names,
        MAX_WAITING,
    );
    Ok(rows.fetch_all(repeatable(pool)).await?)
}

/// Lists the destinations with a problem, by name.
pub(super) async fn problems(pool: &Pool) -> Result<Vec<DestinationProblem>, Error> {
    let problems = sqlx::query_as!(
        DestinationProblem,
        "SELECT name, failing_since, disabled_at, disabled_because FROM callback_destinations
         WHERE failing_since IS NOT NULL OR disabled_at IS NOT NULL ORDER BY name LIMIT $1",
        MAX_PROBLEMS,
    );
    Ok(problems.fetch_all(repeatable(pool)).await?)
}

/// A callback of a transaction.
pub(in crate::transactions) struct CallbackRow {
    pub id: Uuid,
    pub destination: String,
    pub kind: String,
    pub created_at: OffsetDateTime,
    pub attempts: i32,
    pub delivered_at: Option<OffsetDateTime>,
    pub gave_up_at: Option<OffsetDateTime>,
    pub last_status: Option<i32>,
    pub last_error: Option<String>,
}

/// Lists the callbacks of a transaction, oldest first: one for each of its settlements.
pub(in crate::transactions) async fn of_transaction(pool: &Pool, id: Uuid) -> Result<Vec<CallbackRow>, Error> {
    let rows = sqlx::query_as!(
        CallbackRow,
        "SELECT id, destination, kind, created_at, attempts, delivered_at, gave_up_at, last_status, last_error
         FROM callbacks WHERE transaction_id = $1 ORDER BY created_at LIMIT $2",
        id,
        MAX_OF_TRANSACTION,
    );
    Ok(rows.fetch_all(repeatable(pool)).await?)
}

/// Reads the next 5,000 callbacks after `after` that are older than `age`, and deletes those that ended before.
///
/// Ids begin with the milliseconds of their creation, so the old ones are a range of the primary key.
pub(super) async fn delete_expired(pool: &Pool, after: Uuid, age: Duration) -> Result<Step<Uuid>, Error> {
    let step = sqlx::query!(
        r#"WITH step AS (
               SELECT id, coalesce(delivered_at, gave_up_at) < now() - make_interval(secs => $2) AS is_expired FROM callbacks
               WHERE id > $1
                 AND id < (lpad(to_hex((extract(epoch FROM now() - make_interval(secs => $2)) * 1000)::int8), 12, '0')
                           || repeat('0', 20))::uuid
               ORDER BY id LIMIT $3),
           deleted AS (
               DELETE FROM callbacks USING step WHERE callbacks.id = step.id AND step.is_expired RETURNING callbacks.id)
           SELECT count(*) AS "read!", (SELECT id FROM step ORDER BY id DESC LIMIT 1) AS last,
                  (SELECT count(*) FROM deleted) AS "deleted!"
           FROM step"#,
        after,
        age.as_secs_f64(),
        STEP_SIZE,
    )
    .fetch_one(transactional(pool))
    .await?;
    Ok(Step::new(step.read, step.last, step.deleted))
}
