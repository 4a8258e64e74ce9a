//! The SQL of `queue_depths`: the last count of each queue's waiting jobs, and what has come and gone since.

use sqlx::Result;

use runtime::{db::Pool, executor::repeatable};

/// A count ends here. A longer queue keeps its last count, to which is added what has come and gone since.
const MAX_COUNTED: i64 = 2_000_000;

/// Returns the queues whose waiting jobs were not counted in the last minute: those of `own`, and all that have waiting
/// jobs or a count.
pub(crate) async fn uncounted(pool: &Pool, own: &[String]) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"WITH RECURSIVE waiting AS (
               (SELECT job_type FROM apalis.jobs WHERE status = 'Pending' ORDER BY job_type LIMIT 1)
               UNION ALL
               SELECT (SELECT job_type FROM apalis.jobs WHERE status = 'Pending' AND job_type > waiting.job_type
                       ORDER BY job_type LIMIT 1)
               FROM waiting WHERE waiting.job_type IS NOT NULL
           )
           SELECT name AS "name!"
           FROM (SELECT job_type AS name FROM waiting UNION SELECT unnest($1::text[]) UNION SELECT queue FROM queue_depths) AS known
           WHERE name IS NOT NULL
             AND NOT EXISTS (SELECT FROM queue_depths WHERE queue = name AND counted_at > now() - interval '1 minute')"#,
        own,
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Counts the waiting jobs of a queue, in the order of their index. 1,000,000 take 0.15 s if autovacuum has visited them,
/// else up to 0.9 s.
pub(crate) async fn count(pool: &Pool, queue: &str) -> Result<()> {
    sqlx::query!(
        r#"INSERT INTO queue_depths AS kept (queue, counted_at, waiting, later, before)
           SELECT $1, now(), counted.waiting, counted.later, flow.before
           FROM (
               SELECT count(*) AS waiting, count(*) FILTER (WHERE run_at > now()) AS later
               FROM (SELECT run_at FROM apalis.jobs WHERE job_type = $1 AND status = 'Pending'
                     ORDER BY priority, run_at LIMIT $2) AS soonest
           ) AS counted
           CROSS JOIN (
               SELECT coalesce(sum(enqueued + retried + snoozed + rescued - started), 0)::bigint AS before
               FROM queue_minutes WHERE queue = $1 AND minute >= date_trunc('minute', now())
           ) AS flow
           WHERE counted.waiting < $2
           ON CONFLICT (queue) DO UPDATE
           SET counted_at = excluded.counted_at, waiting = excluded.waiting, later = excluded.later, before = excluded.before"#,
        queue,
        MAX_COUNTED,
    )
    .execute(repeatable(pool))
    .await?;
    Ok(())
}

/// The estimated number of waiting jobs of a queue.
pub(crate) struct Depth {
    pub queue: String,
    /// The last count, and what has come and gone since.
    pub waiting: i64,
    /// Those that were not due yet when they were counted.
    pub later: i64,
}

/// Estimates the waiting jobs of these queues, apart from those that were not counted in the last day.
///
/// Counts of events arrive with heartbeats, up to 5 s late. That is so at the count and now, so the delay cancels itself
/// while the rates are steady.
pub(crate) async fn estimate(pool: &Pool, queues: &[String]) -> Result<Vec<Depth>> {
    sqlx::query_as!(
        Depth,
        r#"SELECT queue, waiting - before + flow.since AS "waiting!", later
           FROM queue_depths AS depth
           CROSS JOIN LATERAL (
               SELECT coalesce(sum(enqueued + retried + snoozed + rescued - started), 0)::bigint AS since
               FROM queue_minutes WHERE queue = depth.queue AND minute >= date_trunc('minute', depth.counted_at)
           ) AS flow
           WHERE queue = ANY($1) AND counted_at > now() - interval '1 day'"#,
        queues,
    )
    .fetch_all(repeatable(pool))
    .await
}
