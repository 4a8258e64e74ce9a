//! All SQL of interest rates; what a chain is sent is in `store/sends.rs`.

#[cfg(feature = "smart-contract")]
pub mod sends;

use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    Rate,
    model::{Asset, Cursor, Reading},
};
use crate::{
    boot::pooler::{on, repeatable},
    error::Error,
};

/// Assets as they are stored: equal ones are stored alike, however their numbers were written.
pub fn assets(assets: &[Asset]) -> Value {
    assets.iter().map(|asset| json!({"id": asset.id, "interest_rate": asset.rate.digits()})).collect()
}

/// Saves an average in PostgreSQL, unless its key is known.
pub async fn save(pool: &PgPool, rate: &Rate, assets: &Value, key: Option<&str>) -> Result<bool, Error> {
    let saved = sqlx::query!(
        "INSERT INTO interest_rates (backend, rate, assets, idempotency_key, state, saved_at)
         VALUES ('postgres', $1, $2, $3, 'saved', clock_timestamp())
         ON CONFLICT (idempotency_key, backend) WHERE idempotency_key IS NOT NULL DO NOTHING",
        rate.decimal(),
        assets,
        key,
    )
    .execute(on(pool))
    .await?;
    Ok(saved.rows_affected() == 1)
}

/// Whether what is known by this key are these assets.
pub async fn is_same(pool: &PgPool, backend: &str, key: Option<&str>, assets: &Value) -> Result<bool, Error> {
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

/// Those saved in PostgreSQL before an id, newest first.
pub async fn history(pool: &PgPool, before: Uuid, limit: u32) -> Result<Vec<Reading>, Error> {
    let rows = sqlx::query!(
        r#"SELECT id, rate, saved_at AS "saved_at!" FROM interest_rates WHERE backend = 'postgres' AND id < $1
           ORDER BY id DESC LIMIT $2"#,
        before,
        i64::from(limit),
    )
    .fetch_all(repeatable(pool))
    .await?;
    let reading = |id: Uuid, rate, at| Reading { rate: Rate::stored(rate), at, cursor: Cursor(id.as_u128()) };
    Ok(rows.into_iter().map(|row| reading(row.id, row.rate, row.saved_at)).collect())
}
