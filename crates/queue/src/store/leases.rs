//! The SQL of leases: heartbeats, the check of other workers, and the rescue.
//!
//! No statement here compares two readings of the database's clock, because it may step. A rescuer only reads whether a
//! row has changed. It measures the time since then by its own monotonic clock.

use std::time::Duration;

use sqlx::{PgExecutor, Result, types::JsonValue};

use super::results::ERRORS_KEPT;
use runtime::{db::Pool, executor::repeatable};

/// The error of a run whose worker died.
pub(crate) const WORKER_DIED: &str = "the worker died";

/// Renews this worker's lease. Inserts the row if it does not exist, at the first heartbeat or after it was deleted.
/// Returns whether an operator drains the worker.
pub(crate) async fn renew(
    executor: impl PgExecutor<'_>,
    worker: &str,
    queues: &str,
    lease: Duration,
    claim_errors: Option<JsonValue>,
    status: Option<JsonValue>,
) -> Result<bool> {
    sqlx::query_scalar!(
        "INSERT INTO apalis.workers AS worker
             (id, worker_type, storage_name, layers, lease, last_seen, started_at, claim_errors, status)
         VALUES ($1, 'millrace', 'PostgreSQL', $2, make_interval(secs => $3), now(), now(), $4, $5)
         ON CONFLICT (id) DO UPDATE
         SET last_seen = now(), lease = EXCLUDED.lease, layers = EXCLUDED.layers, claim_errors = EXCLUDED.claim_errors,
             status = EXCLUDED.status
         RETURNING worker.drain",
        worker,
        queues,
        lease.as_secs_f64(),
        claim_errors,
        status,
    )
    .fetch_one(executor)
    .await
}

/// Records that a worker of this version starts, unless the newest record has the same version.
pub(crate) async fn record_release(executor: impl PgExecutor<'_>, version: &str) -> Result<()> {
    sqlx::query!(
        "INSERT INTO worker_releases (version)
         SELECT $1 WHERE $1 IS DISTINCT FROM (SELECT version FROM worker_releases ORDER BY at DESC LIMIT 1)",
        version,
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// The lease of another worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkerLease {
    pub worker: String,
    /// Changes with each heartbeat; `None` while the worker has no row.
    pub version: Option<String>,
    /// The length in seconds.
    pub lease: Option<f64>,
}

/// Returns the leases of all other workers. The version is the row's `xmin`, the number of the transaction that last
/// wrote it. It changes with the heartbeats of every release, and involves no clock.
pub(crate) async fn workers(executor: impl PgExecutor<'_>, own: &str) -> Result<Vec<WorkerLease>> {
    sqlx::query_as!(
        WorkerLease,
        r#"SELECT id AS worker, xmin::text AS "version?", extract(epoch FROM lease)::float8 AS "lease?"
           FROM apalis.workers WHERE id <> $1"#,
        own,
    )
    .fetch_all(executor)
    .await
}

/// Returns the other workers that hold running jobs but have no row. Each worker that holds jobs costs one index look-up,
/// however many jobs it holds. A running job without a worker's name gets one, so that it is found too.
///
/// An old snapshot keeps the index entries of all later claims, and this statement then reads them all: give it a limit.
pub(crate) async fn holders_without_row(executor: impl PgExecutor<'_>, own: &str) -> Result<Vec<String>> {
    sqlx::query_scalar!(
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
           SELECT lock_by AS "worker!"
           FROM holder
           WHERE lock_by <> $1 AND NOT EXISTS (SELECT FROM apalis.workers WHERE id = holder.lock_by)"#,
        own,
    )
    .fetch_all(executor)
    .await
}

/// The UPDATE that rescues the running jobs of silent workers, with a further condition on the job `held`.
macro_rules! rescue {
    ($only:tt, $workers:expr, $versions:expr $(, $ids:expr)?) => {
        sqlx::query_scalar!(
            "UPDATE apalis.jobs AS job
         SET status = 'Pending', crashes = least(greatest(crashes, 0), 2147483646) + 1,
             run_at = CASE WHEN crashes > 0 THEN clock_timestamp() + random() * interval '2500 milliseconds'
                           ELSE least(run_at, clock_timestamp()) END,
             errors = CASE WHEN jsonb_typeof(errors) IS DISTINCT FROM 'array' THEN '[]'
                           WHEN jsonb_array_length(errors) >= $3 THEN errors - 0 ELSE errors END
                 || jsonb_build_object('at', now(), 'run', attempts, 'worker', lock_by, 'due', run_at, 'started', lock_at,
                                       'error', $4::text)
         WHERE id = ANY(ARRAY(
             SELECT held.id
             FROM unnest($1::text[], $2::text[]) AS silent (worker, version)
             JOIN apalis.jobs AS held ON held.lock_by = silent.worker AND held.status = 'Running'
             WHERE (SELECT xmin::text FROM apalis.workers WHERE workers.id = silent.worker)
                   IS NOT DISTINCT FROM silent.version" + $only + "
             FOR UPDATE OF held SKIP LOCKED))
         RETURNING job.job_type",
            $workers,
            $versions as &[Option<String>],
            ERRORS_KEPT,
            WORKER_DIED,
            $($ids,)?
        )
    };
}

/// The names of workers, and the versions of their rows.
fn names_and_versions(silent: &[WorkerLease]) -> (Vec<String>, Vec<Option<String>>) {
    silent.iter().map(|lease| (lease.worker.clone(), lease.version.clone())).unzip()
}

/// Rescues the running jobs of silent workers, and returns the queue of each job. A worker that has renewed its lease
/// since the check has another version, and keeps its jobs.
///
/// Silent workers are few, and `jobs_running` finds their jobs, so this costs nothing in normal operation. The worker
/// rows stay: a claim that was under way when the lease expired is found by a later rescue. Each crash is recorded in
/// the job's errors with the name of the worker, so that an operator can find the last log lines of that worker.
///
/// A job is due at once, even if the database's clock has gone back. From its second crash on it is due at a random
/// time within the next 2.5 s. Otherwise the jobs that were held together with a job that kills its worker would be
/// held together with it again, and all would be quarantined. With a lease of 15 s and a check every 2 s, it still runs
/// elsewhere within 20 s.
pub(crate) async fn rescue(executor: impl PgExecutor<'_>, silent: &[WorkerLease]) -> Result<Vec<String>> {
    let (workers, versions) = names_and_versions(silent);
    rescue!("", &workers, &versions).fetch_all(executor).await
}

/// Rescues those of these jobs that silent workers hold, as [`rescue`] does. For jobs of which the database refuses some.
pub(crate) async fn rescue_some(
    executor: impl PgExecutor<'_>,
    silent: &[WorkerLease],
    ids: &[String],
) -> Result<Vec<String>> {
    let (workers, versions) = names_and_versions(silent);
    rescue!(" AND held.id = ANY($5)", &workers, &versions, ids).fetch_all(executor).await
}

/// Returns the ids of the running jobs of these workers.
pub(crate) async fn find_held(executor: impl PgExecutor<'_>, silent: &[WorkerLease]) -> Result<Vec<String>> {
    let (workers, _) = names_and_versions(silent);
    sqlx::query_scalar!("SELECT id FROM apalis.jobs WHERE lock_by = ANY($1) AND status = 'Running'", &workers)
        .fetch_all(executor)
        .await
}

/// Deletes the row of a worker that stopped gracefully, unless it still holds jobs: the rescue needs the row for them.
pub(crate) async fn delete_worker(executor: impl PgExecutor<'_>, worker: &str) -> Result<()> {
    sqlx::query!(
        "DELETE FROM apalis.workers
         WHERE id = $1 AND NOT EXISTS (SELECT FROM apalis.jobs WHERE lock_by = $1 AND status = 'Running')",
        worker,
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// Deletes the rows of workers that have been dead for this long and hold no jobs.
pub(crate) async fn delete_dead_workers(pool: &Pool, dead_for: Duration) -> Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM apalis.workers AS worker
         WHERE last_seen < now() - make_interval(secs => $1)
           AND NOT EXISTS (SELECT FROM apalis.jobs WHERE lock_by = worker.id AND status = 'Running')",
        dead_for.as_secs_f64(),
    )
    .execute(repeatable(pool))
    .await?;
    Ok(done.rows_affected())
}
