//! SQL of interest rates. `sends.rs` has the SQL of transactions for a chain.

#[cfg(feature = "smart-contract")]
pub(super) mod sends;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Rate,
    model::{Asset, Cursor, SavedRate},
};
use runtime::{
    db::Pool,
    error::Error,
    executor::{Transaction, repeatable},
};

/// The stored form of assets. Equal assets have equal forms, regardless of how the client wrote the numbers.
pub(super) fn assets_json(assets: &[Asset]) -> Value {
    assets.iter().map(|asset| json!({"id": asset.id, "interest_rate": asset.rate.digits()})).collect()
}

/// Saves an average in PostgreSQL; `false` if its key is known already.
pub(super) async fn save(tx: &mut Transaction, rate: &Rate, assets: &Value, key: Option<&str>) -> Result<bool, Error> {
    let saved = sqlx::query!(
        "INSERT INTO interest_rates (backend, rate, assets, idempotency_key, state, saved_at)
         VALUES ('postgres', $1, $2, $3, 'saved', clock_timestamp())
         ON CONFLICT (idempotency_key, backend) WHERE idempotency_key IS NOT NULL DO NOTHING",
        rate.as_decimal(),
        assets,
        key,
    )
    .execute(&mut *tx)
    .await?;
    Ok(saved.rows_affected() == 1)
}

/// Whether the submission with this key has the same assets.
pub(super) async fn has_same_assets(
    pool: &Pool,
    backend: &str,
    key: Option<&str>,
    assets: &Value,
) -> Result<bool, Error> {
    let same = sqlx::query_scalar!(
        r#"SELECT assets = $3 AS "same!" FROM interest_rates WHERE idempotency_key = $2 AND backend = $1"#,
        backend,
        key,
        assets,
    )
    .fetch_one(repeatable(pool))
    .await?;
    Ok(same)
}

/// At most `limit` averages in PostgreSQL with an id below `before`, newest first.
pub(super) async fn history(pool: &Pool, before: Uuid, limit: u32) -> Result<Vec<SavedRate>, Error> {
    let rows = sqlx::query!(
        r#"SELECT id, rate, saved_at AS "saved_at!" FROM interest_rates WHERE backend = 'postgres' AND id < $1
           ORDER BY id DESC LIMIT $2"#,
        before,
        i64::from(limit),
    )
    .fetch_all(repeatable(pool))
    .await?;
    let saved_rate = |id: Uuid, rate, at| SavedRate { rate: Rate::from_stored(rate), at, cursor: Cursor(id.as_u128()) };
    Ok(rows.into_iter().map(|row| saved_rate(row.id, row.rate, row.saved_at)).collect())
}
