//! SQL of replays, which are webhooks that repeat an id with the same payload: how often, and when.

use time::OffsetDateTime;

use runtime::{
    db::Pool,
    error::Error,
    executor::{repeatable, transactional},
};

/// The replays of one transaction.
#[derive(Debug)]
pub(crate) struct CountedReplays {
    pub times: i64,
    pub first_at: OffsetDateTime,
    pub last_at: OffsetDateTime,
}

/// Finds the replays of a transaction; `None` if there was none.
pub(crate) async fn find(pool: &Pool, transaction_id: &str) -> Result<Option<CountedReplays>, Error> {
    let counted = sqlx::query_as!(
        CountedReplays,
        "SELECT times, first_at, last_at FROM webhook_replays WHERE transaction_id = $1",
        transaction_id,
    );
    Ok(counted.fetch_optional(repeatable(pool)).await?)
}

/// Counts a batch of replays by their ids. The rows are locked in the order of the ids, so that processes cannot deadlock.
pub(crate) async fn count(pool: Pool, ids: Vec<String>) -> Result<Vec<()>, Error> {
    sqlx::query!(
        "INSERT INTO webhook_replays (transaction_id, times)
         SELECT id, count(*) FROM unnest($1::text[]) AS given (id) GROUP BY id ORDER BY id
         ON CONFLICT (transaction_id)
         DO UPDATE SET times = webhook_replays.times + excluded.times, last_at = now()",
        &ids,
    )
    .execute(transactional(&pool))
    .await?;
    Ok(vec![(); ids.len()])
}
