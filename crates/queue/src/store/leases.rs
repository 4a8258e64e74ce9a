//! The SQL of leases: heartbeats, what a rescuer sees of them, and the rescue itself.
//!
//! No statement here compares two readings of the database's clock, which may step: a rescuer sees that a row has
//! changed, and measures how long it has not by its own monotonic clock.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool, Result, types::JsonValue};

use super::results::ERRORS_KEPT;
use runtime::pooler::repeatable;

/// Renews this worker's lease; a row that is not there, the first time or because it was deleted, is written anew.
pub async fn renew(
    connection: impl PgExecutor<'_>,
    worker: &str,
    queues: &str,
    lease: Duration,
    claim_errors: Option<JsonValue>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO apalis.workers (id, worker_type, storage_name, layers, lease, last_seen, started_at, claim_errors)
         VALUES ($1, 'millrace', 'PostgreSQL', $2, make_interval(secs => $3), now(), now(), $4)
         ON CONFLICT (id) DO UPDATE
         SET last_seen = now(), lease = EXCLUDED.lease, layers = EXCLUDED.layers, claim_errors = EXCLUDED.claim_errors",
        worker,
        queues,
        lease.as_secs_f64(),
        claim_errors,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The state of one other worker's lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Holder {
    pub worker: String,
    /// Changes with every heartbeat; `None` while the worker has no row.
    pub version: Option<String>,
    /// In seconds.
    pub lease: Option<f64>,
}

/// All workers but this one. The version is the row's `xmin`, the number of the transaction that last wrote it: it
/// changes with the heartbeats of every release, and no clock takes part in it.
pub async fn workers(connection: impl PgExecutor<'_>, own: &str) -> Result<Vec<Holder>> {
    sqlx::query_as!(
        Holder,
        r#"SELECT id AS worker, xmin::text AS "version?", extract(epoch FROM lease)::float8 AS "lease?"
           FROM apalis.workers WHERE id <> $1"#,
        own,
    )
    .fetch_all(connection)
    .await
}

/// Names under which jobs run although no worker of that name has a row. One index look-up for each name that holds
/// jobs, however many these are. A running job without any name gets one, so that it is found as well.
pub async fn unknown_holders(connection: impl PgExecutor<'_>, own: &str) -> Result<Vec<Holder>> {
    sqlx::query_as!(
        Holder,
        r#"WITH RECURSIVE unnamed AS (
               UPDATE apalis.jobs SET lock_by = 'unknown'
               WHERE id = ANY(ARRAY(SELECT id FROM apalis.jobs WHERE status = 'Running' AND lock_by IS NULL
                                    FOR UPDATE SKIP LOCKED))
           ), holder AS (
               (SELECT lock_by FROM apalis.jobs WHERE status = 'Running' AND lock_by IS NOT NULL ORDER BY lock_by LIMIT 1)
               UNION ALL
               SELECT (SELECT lock_by FROM apalis.jobs WHERE status = 'Running' AND lock_by > holder.lock_by
                       ORDER BY lock_by LIMIT 1)
               FROM holder WHERE holder.lock_by IS NOT NULL
           )
           SELECT lock_by AS "worker!", NULL::text AS version, NULL::float8 AS lease
           FROM holder
           WHERE lock_by <> $1 AND NOT EXISTS (SELECT FROM apalis.workers WHERE id = holder.lock_by)"#,
        own,
    )
    .fetch_all(connection)
    .await
}

/// Takes running jobs back from workers that were seen silent for their lease, and returns their queues, one entry a
/// job. A worker that has renewed since it was looked at (another version) keeps its jobs.
///
/// Silent workers are few and their jobs are found by `jobs_running`, so this costs nothing while all are well. The
/// worker rows stay: a claim that was under way when the lease ended is found by a later rescue. Each job gets the
/// evidence of its crash among its errors: an operator who finds it quarantined can look for that worker's last words.
///
/// A job is due at once, whatever the database's clock has done since it was claimed. From its second crash on it is due
/// at a random moment of the next 2.5 s: what was held together with a job that kills its worker must not be held
/// together with it each time, or all of it would be quarantined. After a lease of 15 s and a look every 2 s, that still
/// has it running elsewhere within 20 s.
pub async fn rescue(connection: impl PgExecutor<'_>, silent: &[Holder]) -> Result<Vec<String>> {
    let workers: Vec<String> = silent.iter().map(|holder| holder.worker.clone()).collect();
    let versions: Vec<Option<String>> = silent.iter().map(|holder| holder.version.clone()).collect();
    sqlx::query_scalar!(
        "UPDATE apalis.jobs AS job
         SET status = 'Pending', crashes = least(greatest(crashes, 0), 2147483646) + 1,
             run_at = CASE WHEN crashes > 0 THEN clock_timestamp() + random() * interval '2500 milliseconds'
                           ELSE least(run_at, clock_timestamp()) END,
             errors = CASE WHEN jsonb_typeof(errors) IS DISTINCT FROM 'array' THEN '[]'
                           WHEN jsonb_array_length(errors) >= $3 THEN errors - 0 ELSE errors END
                 || jsonb_build_object('at', now(), 'run', attempts, 'worker', lock_by, 'error', 'the worker died')
         WHERE id = ANY(ARRAY(
             SELECT held.id
             FROM unnest($1::text[], $2::text[]) AS silent (worker, version)
             JOIN apalis.jobs AS held ON held.lock_by = silent.worker AND held.status = 'Running'
             WHERE (SELECT xmin::text FROM apalis.workers WHERE workers.id = silent.worker)
                   IS NOT DISTINCT FROM silent.version
             FOR UPDATE OF held SKIP LOCKED))
         RETURNING job.job_type",
        &workers,
        &versions as &[Option<String>],
        ERRORS_KEPT,
    )
    .fetch_all(connection)
    .await
}

/// Forgets a worker that stopped in good order, unless jobs are still in its name: those are for the rescue.
pub async fn leave(connection: impl PgExecutor<'_>, worker: &str) -> Result<()> {
    sqlx::query!(
        "DELETE FROM apalis.workers
         WHERE id = $1 AND NOT EXISTS (SELECT FROM apalis.jobs WHERE lock_by = $1 AND status = 'Running')",
        worker,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets workers that have been gone for so long and hold nothing any more.
pub async fn forget_workers(pool: &PgPool, gone: Duration) -> Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM apalis.workers AS worker
         WHERE last_seen < now() - make_interval(secs => $1)
           AND NOT EXISTS (SELECT FROM apalis.jobs WHERE lock_by = worker.id AND status = 'Running')",
        gone.as_secs_f64(),
    )
    .execute(repeatable(pool))
    .await?;
    Ok(done.rows_affected())
}
