//! SQL of replays, which are webhooks that repeat an id with the same payload: how often, and when, for a month.

use std::time::Duration;

use time::OffsetDateTime;

use crate::transactions::retention::{STEP_SIZE, Step};
use runtime::{
    db::Pool,
    error::Error,
    executor::{repeatable, transactional},
};

/// Webhooks with a known id and one payload.
#[derive(Debug)]
pub(crate) struct Repetition {
    /// The fields that differ from the recorded transaction; `None` for replays.
    pub fields: Option<Vec<String>>,
    /// How often this payload was received again.
    pub times: i64,
    pub first_at: OffsetDateTime,
    pub last_at: OffsetDateTime,
    /// Of the first webhook with this payload; `None` for replays.
    pub correlation_id: Option<String>,
    /// How many webhooks contradicted the transaction, with any payload; `None` for replays.
    pub conflicts: Option<i64>,
}

/// Lists the replays of a transaction, and the stored payloads of its conflicts with their total.
pub(crate) async fn repetitions(pool: &Pool, transaction_id: &str) -> Result<Vec<Repetition>, Error> {
    let repetitions = sqlx::query_as!(
        Repetition,
        r#"SELECT NULL::text[] AS fields, times AS "times!", first_at AS "first_at!", last_at AS "last_at!",
                  NULL::text AS correlation_id, NULL::int8 AS conflicts
           FROM webhook_replays WHERE transaction_id = $1
           UNION ALL
           SELECT fields, times, first_at, first_at, correlation_id,
                  (SELECT total.times FROM webhook_conflict_totals AS total WHERE total.transaction_id = $1)
           FROM webhook_conflicts WHERE transaction_id = $1"#,
        transaction_id,
    );
    Ok(repetitions.fetch_all(repeatable(pool)).await?)
}

/// Counts a batch of replays by their ids.
pub(crate) async fn count(pool: Pool, ids: Vec<String>) -> Result<Vec<()>, Error> {
    count_by_id!("webhook_replays", &ids).execute(transactional(&pool)).await?;
    Ok(vec![(); ids.len()])
}

/// Reads the next 5,000 ids after `after`, and deletes the counts of those whose last replay is older than `age`. Rows that a
/// count is changing are skipped, so that neither waits for the other.
pub(crate) async fn delete_expired(pool: &Pool, after: String, age: Duration) -> Result<Step<String>, Error> {
    let step = sqlx::query!(
        r#"WITH step AS (
               SELECT transaction_id FROM webhook_replays WHERE transaction_id > $1 ORDER BY transaction_id LIMIT $3),
           expired AS (
               DELETE FROM webhook_replays
               WHERE transaction_id = ANY(ARRAY(
                   SELECT old.transaction_id FROM step JOIN webhook_replays AS old USING (transaction_id)
                   WHERE old.last_at < now() - make_interval(secs => $2) FOR UPDATE OF old SKIP LOCKED))
               RETURNING transaction_id)
           SELECT count(*) AS "read!", max(transaction_id) AS last, (SELECT count(*) FROM expired) AS "deleted!"
           FROM step"#,
        after,
        age.as_secs_f64(),
        STEP_SIZE,
    )
    .fetch_one(transactional(pool))
    .await?;
    Ok(Step::new(step.read, step.last, step.deleted))
}
