//! The SQL by which features look up their waiting and running jobs.

use sqlx::{PgExecutor, Result};

/// Returns the seconds until a waiting job is due, at most 100 years; `None` if it is running, finished or unknown. The
/// time is limited before it is subtracted, because another program may have written an infinite one.
pub(crate) async fn due_in(executor: impl PgExecutor<'_>, id: &str) -> Result<Option<f64>> {
    sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM greatest(least(run_at, now() + interval '100 years'), now() - interval '100 years')
                          - clock_timestamp())::float8 AS "seconds!"
           FROM apalis.jobs WHERE id = $1 AND status = 'Pending'"#,
        id,
    )
    .fetch_optional(executor)
    .await
}

/// Locks a waiting job whose key is in the range from `from` to `to`, without `to`. Returns whether there is one. No
/// claim takes it before the transaction ends. A job that is just being claimed does not count.
pub(crate) async fn lock_waiting_job(executor: impl PgExecutor<'_>, queue: &str, from: &str, to: &str) -> Result<bool> {
    let locked = sqlx::query_scalar!(
        "SELECT id FROM apalis.jobs
         WHERE job_type = $1 AND idempotency_key IS NOT NULL AND idempotency_key >= $2 AND idempotency_key < $3
           AND status = 'Pending'
         LIMIT 1 FOR UPDATE SKIP LOCKED",
        queue,
        from,
        to,
    );
    Ok(locked.fetch_optional(executor).await?.is_some())
}

/// Returns the ids of up to `limit` waiting or running jobs of a queue. It reads one snapshot, so a job that is being
/// claimed appears exactly once.
///
/// The orders are those of `jobs_running` and `jobs_ready`; callers do not need them. They keep the plan on these
/// indexes even when the statistics were taken during a backlog, and estimate that most of the table is waiting.
pub(crate) async fn unfinished_jobs(executor: impl PgExecutor<'_>, queue: &str, limit: i64) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"(SELECT id AS "id!" FROM apalis.jobs WHERE job_type = $1 AND status = 'Running' ORDER BY lock_by LIMIT $2)
           UNION ALL
           (SELECT id FROM apalis.jobs WHERE job_type = $1 AND status = 'Pending' ORDER BY priority, run_at LIMIT $2)
           LIMIT $2"#,
        queue,
        limit,
    )
    .fetch_all(executor)
    .await
}
