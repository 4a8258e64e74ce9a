//! The SQL that sums `queue_minutes` by hour in `queue_hours`, and deletes what is old.

use sqlx::{PgExecutor, Result};

/// Returns the queues that have minutes or hours: one index look-up for each.
pub(crate) async fn queues(executor: impl PgExecutor<'_>) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"WITH RECURSIVE by_minute AS (
               (SELECT queue FROM queue_minutes ORDER BY queue LIMIT 1)
               UNION ALL
               SELECT (SELECT queue FROM queue_minutes WHERE queue > by_minute.queue ORDER BY queue LIMIT 1)
               FROM by_minute WHERE by_minute.queue IS NOT NULL
           ), by_hour AS (
               (SELECT queue FROM queue_hours ORDER BY queue LIMIT 1)
               UNION ALL
               SELECT (SELECT queue FROM queue_hours WHERE queue > by_hour.queue ORDER BY queue LIMIT 1)
               FROM by_hour WHERE by_hour.queue IS NOT NULL
           )
           SELECT queue AS "queue!" FROM (SELECT queue FROM by_minute UNION SELECT queue FROM by_hour) AS known
           WHERE queue IS NOT NULL"#
    )
    .fetch_all(executor)
    .await
}

/// Sums the next finished hours of a queue, of at most `limit` hours from the first one. Returns how many had counts.
///
/// An hour is finished ten minutes after its end, because processes add their counts to the present minute. Two sessions
/// that sum the same hour get the same sums, and one of them writes them. An unfinished hour may have been summed before the
/// server's clock went back. It keeps no hour before it from being summed.
pub(crate) async fn sum(executor: impl PgExecutor<'_>, queue: &str, limit: i32) -> Result<i64> {
    sqlx::query_scalar!(
        r#"WITH next AS (
               SELECT date_trunc('hour', min(minute), 'UTC') AS hour FROM queue_minutes
               WHERE queue = $1
                 AND minute >= coalesce((SELECT max(hour) + interval '1 hour' FROM queue_hours
                                         WHERE queue = $1
                                           AND hour < date_trunc('hour', now() - interval '10 minutes', 'UTC')), '-infinity')
           ), finished AS (
               SELECT *, date_trunc('hour', minute, 'UTC') AS hour FROM queue_minutes
               WHERE queue = $1 AND minute >= (SELECT hour FROM next)
                 AND minute < least((SELECT hour + make_interval(hours => $2) FROM next),
                                    date_trunc('hour', now() - interval '10 minutes', 'UTC'))
           ), summed AS (
               INSERT INTO queue_hours
                   (queue, hour, enqueued, started, done, retried, snoozed, dead, cancelled, rescued, fenced, run_us, waits, runs)
               SELECT $1, hour, sum(enqueued), sum(started), sum(done), sum(retried), sum(snoozed), sum(dead), sum(cancelled),
                      sum(rescued), sum(fenced), sum(run_us),
                      ARRAY(SELECT sum(counted)::bigint FROM finished AS one, unnest(one.waits) WITH ORDINALITY AS bucket (counted, number)
                            WHERE one.hour = finished.hour GROUP BY number ORDER BY number),
                      ARRAY(SELECT sum(counted)::bigint FROM finished AS one, unnest(one.runs) WITH ORDINALITY AS bucket (counted, number)
                            WHERE one.hour = finished.hour GROUP BY number ORDER BY number)
               FROM finished GROUP BY hour
               ON CONFLICT (queue, hour) DO NOTHING
               RETURNING hour
           )
           SELECT count(*) AS "count!" FROM summed"#,
        queue,
        limit,
    )
    .fetch_one(executor)
    .await
}

/// Deletes up to `limit` minutes of a queue that are older than 14 days. Returns whether there may be more. Minutes that
/// another session deletes are skipped.
pub(crate) async fn delete_old_minutes(executor: impl PgExecutor<'_>, queue: &str, limit: i64) -> Result<bool> {
    let deleted = sqlx::query!(
        "DELETE FROM queue_minutes
         WHERE ctid = ANY(ARRAY(SELECT ctid FROM queue_minutes
                                WHERE queue = $1 AND minute < date_trunc('hour', now() - interval '14 days', 'UTC')
                                ORDER BY minute LIMIT $2 FOR UPDATE SKIP LOCKED))",
        queue,
        limit,
    )
    .execute(executor)
    .await?;
    Ok(deleted.rows_affected().cast_signed() == limit)
}

/// Deletes up to `limit` hours of a queue that are older than 400 days.
pub(crate) async fn delete_old_hours(executor: impl PgExecutor<'_>, queue: &str, limit: i64) -> Result<()> {
    sqlx::query!(
        "DELETE FROM queue_hours
         WHERE ctid = ANY(ARRAY(SELECT ctid FROM queue_hours WHERE queue = $1 AND hour < now() - interval '400 days'
                                ORDER BY hour LIMIT $2))",
        queue,
        limit,
    )
    .execute(executor)
    .await?;
    Ok(())
}
