//! What became of runs: every statement that holds only under a fencing token.

use sqlx::{PgPool, Result};

use crate::boot::pooler::{once, repeatable};

/// Marks runs as done, each under its token; answers how many tokens still held.
///
/// Everything in the condition but the primary key is written so that no index fits it: with a usable condition on
/// `lock_by` or `status` and statistics that do not know this worker yet, 500 rows took 182 ms instead of 6.
pub async fn finish(pool: &PgPool, worker: &str, ids: &[String], tokens: &[i32]) -> Result<u64> {
    let finished = sqlx::query!(
        r#"UPDATE apalis.jobs AS job
           SET status = 'Done', done_at = now(), last_result = '{"Ok": null}'
           FROM unnest($2::text[], $3::int4[]) AS ended (id, token)
           WHERE job.id = ended.id AND job.attempts = ended.token
             AND job.lock_by IS NOT DISTINCT FROM $1 AND job.status || '' = 'Running'"#,
        worker,
        ids,
        tokens,
    );
    Ok(finished.execute(repeatable(pool)).await?.rows_affected())
}

/// Those of these runs that are marked as done.
pub async fn finished(pool: &PgPool, worker: &str, ids: &[String], tokens: &[i32]) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        "SELECT job.id FROM apalis.jobs AS job JOIN unnest($2::text[], $3::int4[]) AS ended (id, token) USING (id)
         WHERE job.attempts = ended.token AND job.lock_by IS NOT DISTINCT FROM $1 AND job.status = 'Done'",
        worker,
        ids,
        tokens,
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Runs that did not end well, column by column.
#[derive(Debug, Default)]
pub struct Unfinished {
    pub ids: Vec<String>,
    pub tokens: Vec<i32>,
    /// Given up: becomes a dead letter. Otherwise it waits again.
    pub dead: Vec<bool>,
    /// Seconds until it is due again; `None` leaves the due time as it was.
    pub delays: Vec<Option<f64>>,
    /// What went wrong; `None` when nothing did.
    pub errors: Vec<Option<String>>,
    /// The limit that applied, shown to operators.
    pub attempts: Vec<i32>,
}

/// Errors kept with a job, the newest ones.
pub(super) const ERRORS_KEPT: i32 = 10;

/// Writes the results of runs that did not end well: state, due time and error in one statement, each under its token.
pub async fn put_back(pool: &PgPool, worker: &str, runs: &Unfinished) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"UPDATE apalis.jobs AS job
           SET status = CASE WHEN ended.dead THEN 'Killed' ELSE 'Pending' END,
               done_at = CASE WHEN ended.dead THEN now() END,
               run_at = coalesce(clock_timestamp() + make_interval(secs => ended.delay), job.run_at),
               failures = job.failures + (ended.error IS NOT NULL)::int,
               max_attempts = ended.attempts,
               last_result = coalesce(jsonb_build_object('Err', ended.error), job.last_result),
               errors = CASE WHEN ended.error IS NULL THEN job.errors ELSE
                   CASE WHEN jsonb_array_length(job.errors) >= $8 THEN job.errors - 0
                        ELSE coalesce(job.errors, '[]') END
                   || jsonb_build_object('at', now(), 'run', ended.token, 'worker', $1::text, 'error', ended.error) END
           FROM unnest($2::text[], $3::int4[], $4::bool[], $5::float8[], $6::text[], $7::int4[])
                AS ended (id, token, dead, delay, error, attempts)
           WHERE job.id = ended.id AND job.attempts = ended.token
             AND job.lock_by IS NOT DISTINCT FROM $1 AND job.status || '' = 'Running'
           RETURNING job.id"#,
        worker,
        &runs.ids,
        &runs.tokens,
        &runs.dead,
        &runs.delays as &[Option<f64>],
        &runs.errors as &[Option<String>],
        &runs.attempts,
        ERRORS_KEPT,
    )
    .fetch_all(once(pool))
    .await
}
