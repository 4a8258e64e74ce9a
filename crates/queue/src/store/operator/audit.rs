//! The SQL of the record of operators' actions.

use serde_json::Value;
use sqlx::{PgExecutor, Result};

use crate::order::{Action, Order};
use runtime::{db::Pool, executor::repeatable};

/// Records an action, in the transaction that does it.
pub(crate) async fn record(
    executor: impl PgExecutor<'_>,
    order: &Order,
    action: &str,
    target: &str,
    filter: Option<Value>,
    count: usize,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO operator_actions (actor, via, action, target, filter, reason, count) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        order.actor,
        order.via.as_str(),
        action,
        target,
        filter,
        order.reason,
        i64::try_from(count).unwrap_or(i64::MAX),
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// Lists actions before an id, newest first.
pub(crate) async fn list(pool: &Pool, target: Option<&str>, before: i64, limit: i64) -> Result<Vec<Action>> {
    match target {
        None => {
            sqlx::query_as!(
                Action,
                "SELECT * FROM operator_actions WHERE id < $1 ORDER BY id DESC LIMIT $2",
                before,
                limit
            )
            .fetch_all(repeatable(pool))
            .await
        }
        Some(target) => {
            sqlx::query_as!(
                Action,
                "SELECT * FROM operator_actions WHERE target = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
                target,
                before,
                limit,
            )
            .fetch_all(repeatable(pool))
            .await
        }
    }
}
