//! The SQL that moves old minutes of `queue_minutes` into `queue_hours`.

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

/// Moves up to `limit` minutes of a queue that are older than 14 days into its hours. Returns their number. Minutes that
/// another session moves are skipped.
pub(crate) async fn roll_up(executor: impl PgExecutor<'_>, queue: &str, limit: i64) -> Result<i64> {
    sqlx::query_scalar!(
        r#"WITH old AS (
               DELETE FROM queue_minutes
               WHERE ctid = ANY(ARRAY(
                   SELECT ctid FROM queue_minutes
                   WHERE queue = $1 AND minute < date_trunc('hour', now() - interval '14 days', 'UTC')
                   ORDER BY minute LIMIT $2 FOR UPDATE SKIP LOCKED))
               RETURNING *, date_trunc('hour', minute, 'UTC') AS hour
           ), moved AS (
               INSERT INTO queue_hours AS kept
                   (queue, hour, enqueued, started, done, retried, snoozed, dead, cancelled, rescued, fenced, run_us, waits, runs)
               SELECT $1, hour, sum(enqueued), sum(started), sum(done), sum(retried), sum(snoozed), sum(dead), sum(cancelled),
                      sum(rescued), sum(fenced), sum(run_us),
                      ARRAY(SELECT sum(counted)::bigint FROM old AS one, unnest(one.waits) WITH ORDINALITY AS bucket (counted, number)
                            WHERE one.hour = old.hour GROUP BY number ORDER BY number),
                      ARRAY(SELECT sum(counted)::bigint FROM old AS one, unnest(one.runs) WITH ORDINALITY AS bucket (counted, number)
                            WHERE one.hour = old.hour GROUP BY number ORDER BY number)
               FROM old GROUP BY hour
               ON CONFLICT (queue, hour) DO UPDATE
               SET enqueued = kept.enqueued + excluded.enqueued, started = kept.started + excluded.started,
                   done = kept.done + excluded.done, retried = kept.retried + excluded.retried,
                   snoozed = kept.snoozed + excluded.snoozed, dead = kept.dead + excluded.dead,
                   cancelled = kept.cancelled + excluded.cancelled, rescued = kept.rescued + excluded.rescued,
                   fenced = kept.fenced + excluded.fenced, run_us = kept.run_us + excluded.run_us,
                   waits = ARRAY(SELECT coalesce(one, 0) + coalesce(other, 0) FROM unnest(kept.waits, excluded.waits) AS sums (one, other)),
                   runs = ARRAY(SELECT coalesce(one, 0) + coalesce(other, 0) FROM unnest(kept.runs, excluded.runs) AS sums (one, other))
           )
           SELECT count(*) AS "count!" FROM old"#,
        queue,
        limit,
    )
    .fetch_one(executor)
    .await
}

/// Deletes up to `limit` hours of a queue that are older than 400 days.
pub(crate) async fn delete_old(executor: impl PgExecutor<'_>, queue: &str, limit: i64) -> Result<()> {
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
