//! The SQL of `queue_depths`: the last count of each queue's waiting jobs.
//!
//! Up to 10,000 waiting jobs are counted at each look, which takes 1.5 ms. A longer queue is estimated by the view
//! `estimated_depths`: its last count, and the events of `queue_minutes` since. An exact number at each look would cost
//! 0.15 to 0.9 s for 1,000,000 jobs; one that every transaction keeps would be a row that all of them lock.
//!
//! The estimate is exact while nothing comes and goes. Events arrive with heartbeats, up to 5 s late. That is so at the
//! count and now, so the delay cancels itself while the rates are steady. The estimate lacks what no process counts: jobs
//! that another program inserts, and the last seconds of a process that was killed. The next count includes them. Until
//! then, jobs that were enqueued for later since the last count are among the due ones.

use sqlx::Result;

use runtime::{db::Pool, executor::repeatable};

/// A count ends here. A longer queue keeps its last count, to which is added what has come and gone since.
const MAX_COUNTED: i64 = 2_000_000;

/// Returns the queues whose waiting jobs were not counted in the last minute: those of `own`, and all that have waiting
/// jobs or a count. A count of a later time was made before the server's clock went back: its age is not known.
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
             AND NOT EXISTS (SELECT FROM queue_depths WHERE queue = name AND counted_at > now() - interval '1 minute' AND counted_at <= now())"#,
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
