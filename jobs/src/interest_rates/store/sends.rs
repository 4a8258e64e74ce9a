//! SQL of submissions to a chain, and of the transactions signed for them.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::interest_rates::{
    Rate,
    chain::{Fees, Hash, SignedTransaction},
    model::RecordedSubmission,
};
use runtime::{
    db::Pool,
    error::Error,
    executor::{Transaction, begin, repeatable, transactional},
};

/// Records a submission for a chain; `None` if its key is known already.
pub(crate) async fn insert(
    tx: &mut Transaction,
    rate: &Rate,
    assets: &Value,
    key: Option<&str>,
) -> Result<Option<Uuid>, Error> {
    let id = sqlx::query_scalar!(
        "INSERT INTO interest_rates (backend, rate, assets, idempotency_key, state)
         VALUES ('smart_contract', $1, $2, $3, 'pending')
         ON CONFLICT (idempotency_key, backend) WHERE idempotency_key IS NOT NULL DO NOTHING
         RETURNING id",
        rate.as_decimal(),
        assets,
        key,
    )
    .fetch_optional(&mut *tx)
    .await?;
    Ok(id)
}

/// The submission with this key, and whether it has the same assets; `None` if it was withdrawn meanwhile.
pub(crate) async fn find_by_key(pool: &Pool, key: &str, assets: &Value) -> Result<Option<(Uuid, bool)>, Error> {
    let row = sqlx::query!(
        r#"SELECT id, assets = $2 AS "same!" FROM interest_rates
           WHERE idempotency_key = $1 AND backend = 'smart_contract'"#,
        key,
        assets,
    )
    .fetch_optional(repeatable(pool))
    .await?;
    Ok(row.map(|row| (row.id, row.same)))
}

/// Reads a recorded submission.
pub(crate) async fn find(pool: &Pool, id: Uuid) -> Result<Option<RecordedSubmission>, Error> {
    let row = sqlx::query!("SELECT id, rate, state FROM interest_rates WHERE id = $1", id)
        .fetch_optional(repeatable(pool))
        .await?;
    let Some(row) = row else { return Ok(None) };
    let state = row.state.parse().map_err(|_| Error::Internal(format!("interest rate {id}: unknown state")))?;
    Ok(Some(RecordedSubmission { id: row.id, rate: Rate::from_stored(row.rate), state }))
}

/// The transactions signed for a submission and this contract, oldest first. Each comes with the time since it was last
/// sent.
pub(crate) async fn list(pool: &Pool, id: Uuid, contract: &str) -> Result<Vec<(SignedTransaction, Duration)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT nonce, hash, raw, max_fee, priority,
                  extract(epoch FROM clock_timestamp() - sent_at)::float8 AS "age!"
           FROM chain_sends WHERE rate_id = $1 AND contract = $2 ORDER BY number"#,
        id,
        contract,
    )
    .fetch_all(repeatable(pool))
    .await?;
    let broken = |what: &str| Error::Internal(format!("interest rate {id}: the stored {what} is not readable"));
    rows.into_iter()
        .map(|row| {
            let max_fee = row.max_fee.parse().map_err(|_| broken("fee"))?;
            let priority = row.priority.parse().map_err(|_| broken("priority"))?;
            let send = SignedTransaction {
                nonce: u64::try_from(row.nonce).map_err(|_| broken("nonce"))?,
                hash: Hash::try_from(&*row.hash).map_err(|_| broken("hash"))?,
                raw: row.raw,
                fees: Fees { max_fee, priority },
            };
            Ok((send, Duration::try_from_secs_f64(row.age).unwrap_or_default()))
        })
        .collect()
}

/// Locks a sender until the database transaction ends. Meanwhile no other process signs or sends for this account.
pub(crate) async fn lock_sender(pool: &Pool, sender: &str) -> Result<Transaction, Error> {
    let mut tx = begin(pool).await?;
    sqlx::query!(r#"SELECT pg_advisory_xact_lock(hashtextextended('chain ' || $1, 0)) AS "held!: ()""#, sender)
        .fetch_one(&mut tx)
        .await?;
    Ok(tx)
}

/// Records a signed transaction before it is sent, as the next one of its submission.
pub(crate) async fn insert_send(
    pool: &Pool,
    id: Uuid,
    contract: &str,
    sender: &str,
    send: &SignedTransaction,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO chain_sends (rate_id, number, contract, sender, nonce, hash, raw, max_fee, priority)
         SELECT $1, count(*) + 1, $2, $3, $4, $5, $6, $7, $8 FROM chain_sends WHERE rate_id = $1",
        id,
        contract,
        sender,
        i64::try_from(send.nonce).unwrap_or(i64::MAX),
        send.hash.as_slice(),
        send.raw,
        send.fees.max_fee.to_string(),
        send.fees.priority.to_string(),
    )
    .execute(transactional(pool))
    .await?;
    Ok(())
}

/// Records the time at which a transaction was sent again.
pub(crate) async fn mark_resent(pool: &Pool, id: Uuid, hash: Hash) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE chain_sends SET sent_at = clock_timestamp() WHERE rate_id = $1 AND hash = $2",
        id,
        hash.as_slice()
    )
    .execute(repeatable(pool))
    .await?;
    Ok(())
}

/// Deletes a signed transaction that the node refused, so that it is not sent again.
pub(crate) async fn delete_refused(pool: &Pool, id: Uuid, hash: Hash) -> Result<(), Error> {
    sqlx::query!("DELETE FROM chain_sends WHERE rate_id = $1 AND hash = $2", id, hash.as_slice())
        .execute(transactional(pool))
        .await?;
    Ok(())
}

/// Marks a submission as saved on the chain at the time `at`.
pub(crate) async fn mark_saved(pool: &Pool, id: Uuid, at: OffsetDateTime) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE interest_rates SET state = 'saved', saved_at = $2 WHERE id = $1 AND state = 'pending'",
        id,
        at,
    )
    .execute(repeatable(pool))
    .await?;
    Ok(())
}

/// Withdraws a pending submission and releases its key; `false` if a transaction was signed for it or it is no longer
/// pending.
pub(crate) async fn withdraw(tx: &mut Transaction, id: Uuid) -> Result<bool, Error> {
    let withdrawn = sqlx::query!(
        "UPDATE interest_rates SET state = 'withdrawn', idempotency_key = NULL
         WHERE id = $1 AND state = 'pending' AND NOT EXISTS (SELECT FROM chain_sends WHERE rate_id = $1)",
        id,
    )
    .execute(&mut *tx)
    .await?;
    Ok(withdrawn.rows_affected() == 1)
}
