//! The SQL of what features ask about their jobs that wait or run.

use sqlx::{PgExecutor, Result};

/// Seconds until a waiting job is due, 100 years at most; `None` when it is running, finished or unknown. Bounded before
/// it is subtracted: the time of another program's row may be infinite.
pub async fn due_in(executor: impl PgExecutor<'_>, id: &str) -> Result<Option<f64>> {
    sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM greatest(least(run_at, now() + interval '100 years'), now() - interval '100 years')
                          - clock_timestamp())::float8 AS "seconds!"
           FROM apalis.jobs WHERE id = $1 AND status = 'Pending'"#,
        id,
    )
    .fetch_optional(executor)
    .await
}

/// Whether a job waits whose key is from here to there, the end excluded. It is locked: no claim takes it before the
/// transaction ends. One that is being claimed in this moment does not count.
pub async fn hold_waiting(executor: impl PgExecutor<'_>, queue: &str, from: &str, to: &str) -> Result<bool> {
    let held = sqlx::query_scalar!(
        "SELECT id FROM apalis.jobs
         WHERE job_type = $1 AND idempotency_key IS NOT NULL AND idempotency_key >= $2 AND idempotency_key < $3
           AND status = 'Pending'
         LIMIT 1 FOR UPDATE SKIP LOCKED",
        queue,
        from,
        to,
    );
    Ok(held.fetch_optional(executor).await?.is_some())
}

/// The ids of up to `most` jobs of a queue that wait or run, in one snapshot: a job between the two is there once.
///
/// The orders are those of `jobs_running` and `jobs_ready`, and matter to nobody: they keep the plan on these indexes
/// when the statistics, made in a backlog, still take most of the table for waiting.
pub async fn live(executor: impl PgExecutor<'_>, queue: &str, most: i64) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"(SELECT id AS "id!" FROM apalis.jobs WHERE job_type = $1 AND status = 'Running' ORDER BY lock_by LIMIT $2)
           UNION ALL
           (SELECT id FROM apalis.jobs WHERE job_type = $1 AND status = 'Pending' ORDER BY priority, run_at LIMIT $2)
           LIMIT $2"#,
        queue,
        most,
    )
    .fetch_all(executor)
    .await
}
