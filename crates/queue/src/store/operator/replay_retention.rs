//! The SQL that deletes replays which ended long ago.

use std::time::Duration;

use sqlx::Result;

use runtime::{db::Pool, executor::repeatable};

/// Deletes up to `limit` rows of the jobs of replays that ended longer ago than `age`. Returns whether there may be more.
/// Rows that another session deletes are skipped.
///
/// A replay may have 100,000 of these rows, so they go before it, in batches.
pub(crate) async fn delete_jobs(pool: &Pool, age: Duration, limit: i64) -> Result<bool> {
    let deleted = sqlx::query!(
        "DELETE FROM replayed_jobs
         WHERE ctid = ANY(ARRAY(
             SELECT entry.ctid FROM replays
             CROSS JOIN LATERAL (
                 SELECT ctid FROM replayed_jobs WHERE replay = replays.id ORDER BY number LIMIT $2 FOR UPDATE SKIP LOCKED
             ) AS entry
             WHERE replays.state IN ('stopped', 'done') AND replays.ended_at < now() - make_interval(secs => $1)
             LIMIT $2))",
        age.as_secs_f64(),
        limit,
    )
    .execute(repeatable(pool))
    .await?;
    Ok(deleted.rows_affected().cast_signed() == limit)
}

/// Deletes up to `limit` replays that ended longer ago than `age` and have no rows of jobs left. Returns their number.
pub(crate) async fn delete(pool: &Pool, age: Duration, limit: i64) -> Result<u64> {
    let deleted = sqlx::query!(
        "DELETE FROM replays
         WHERE id = ANY(ARRAY(
             SELECT id FROM replays
             WHERE state IN ('stopped', 'done') AND ended_at < now() - make_interval(secs => $1)
               AND NOT EXISTS (SELECT FROM replayed_jobs WHERE replay = replays.id)
             ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED))",
        age.as_secs_f64(),
        limit,
    )
    .execute(repeatable(pool))
    .await?;
    Ok(deleted.rows_affected())
}
