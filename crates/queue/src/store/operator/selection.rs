//! The SQL that selects waiting and running jobs to cancel.

use sqlx::Result;

use crate::store::list::Page;
use runtime::{db::Pool, executor::repeatable};

/// The most jobs of a queue that a selection reads.
const SEARCHED: i64 = 100_000;

/// Selects ids of a queue's jobs from a range of an index with the conditions of a [`Page`].
macro_rules! select_live {
    ($range:tt, $pool:expr, $page:expr $(, $shown:expr)?) => {
        sqlx::query_scalar!(
            "SELECT id FROM (SELECT id, lock_by, attempts, idempotency_key, error_group, errors FROM apalis.jobs
                             WHERE job_type = $1 AND "
                + $range
                + " LIMIT $9) AS job
             WHERE id < $2 AND ($3::text IS NULL OR position($3 IN errors -> -1 ->> 'error') > 0)
               AND ($5::text IS NULL OR coalesce(error_group, '') = $5) AND ($6::text IS NULL OR lock_by = $6)
               AND ($7::int4 IS NULL OR attempts >= $7) AND ($8::text IS NULL OR idempotency_key = $8)
             LIMIT $4",
            $page.queue,
            $page.before,
            $page.error,
            $page.limit,
            $page.group,
            $page.worker,
            $page.attempts,
            $page.key,
            SEARCHED
            $(, $shown)?
        )
        .fetch_all(repeatable($pool))
        .await
    };
}

/// Selects waiting jobs among the first 100,000, in the order of `jobs_ready`.
pub(crate) async fn waiting(pool: &Pool, page: &Page<'_>) -> Result<Vec<String>> {
    select_live!("status = 'Pending' ORDER BY priority, run_at", pool, page)
}

/// Selects running jobs.
pub(crate) async fn running(pool: &Pool, page: &Page<'_>) -> Result<Vec<String>> {
    select_live!("status = 'Running' ORDER BY lock_by", pool, page)
}

/// Selects those of these jobs that wait. As an expression the status fits no partial index, so the primary key is used,
/// also by a plan that was made while the tables were small.
pub(crate) async fn shown_waiting(pool: &Pool, page: &Page<'_>, shown: &[String]) -> Result<Vec<String>> {
    select_live!("status || '' = 'Pending' AND id = ANY($10)", pool, page, shown)
}

/// Selects those of these jobs that run, also by the primary key.
pub(crate) async fn shown_running(pool: &Pool, page: &Page<'_>, shown: &[String]) -> Result<Vec<String>> {
    select_live!("status || '' = 'Running' AND id = ANY($10)", pool, page, shown)
}
