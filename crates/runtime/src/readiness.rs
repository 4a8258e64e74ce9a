//! Whether the database can be used: reachable, with a schema that fits, and writable.

use std::time::Duration;

use super::{
    db::Pool,
    diagnose,
    migrate::{self, SchemaError},
    session, writable,
};
use crate::error::causes;

/// Checks that the database can be reached, and that it has the schema of this release or of a later one.
///
/// # Errors
/// When it cannot be reached or has another schema. Returns the reason less than 1 s after `limit`.
pub async fn check_schema(pool: &Pool, limit: Duration) -> Result<(), String> {
    check_within(pool, limit, migrate::check_compatible(pool)).await
}

/// Checks the same as [`check_schema`], and that the database accepts writes.
///
/// # Errors
/// When it cannot be reached or written to, or has another schema. Returns the reason less than 1 s after `limit`.
pub async fn check_ready(pool: &Pool, limit: Duration) -> Result<(), String> {
    let checked = async {
        migrate::check_compatible(pool).await?;
        Ok(session::probe(pool).await?)
    };
    check_within(pool, limit, checked).await?;
    writable::write_refusal().map_or(Ok(()), Err)
}

async fn check_within(
    pool: &Pool,
    limit: Duration,
    check: impl Future<Output = Result<(), SchemaError>>,
) -> Result<(), String> {
    match tokio::time::timeout(limit, check).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(causes(&error)),
        Err(_elapsed) => {
            Err(format!("the database did not reply in time: {}", diagnose::connection_failure(pool).await))
        }
    }
}
