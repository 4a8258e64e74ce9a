//! The SQL of the operator's commands.

pub(crate) mod audit;
pub(crate) mod groups;
pub(crate) mod minutes;
pub(crate) mod replay_retention;
pub(crate) mod replays;
pub(crate) mod selection;
pub(crate) mod trends;
pub(crate) mod why;
pub(crate) mod workers;

use sqlx::{PgExecutor, Result, types::time::OffsetDateTime};

use super::{minutes as queue_minutes, results::EVENTS_KEPT};
use crate::{
    CANCELLATIONS, CHANNEL,
    counts::{Event, Taken},
    order::Order,
    status::QueueStatus,
    storable::ReadTime,
};
use runtime::{
    db::Pool,
    executor::{Transaction, repeatable},
};

/// Reads the state of queues: `$1` is the limit of the counts of waiting jobs, and `$2` that of dead and finished ones.
/// `$before` has common table expressions, and `$known` the one with the names of the queues.
///
/// Waiting and dead jobs are counted on their partial indexes. Finished jobs have no index, so only the newest `$2` jobs
/// are read. Three queues with 500,000 finished, 500,000 waiting and 20,000 dead jobs take 9 ms.
macro_rules! queue_status {
    ($before:tt, $known:tt $(, $parameter:expr)*) => {
        sqlx::query_as!(
            QueueStatus,
            $before
                + r#"running AS (
               SELECT job_type AS name, count(*) AS jobs FROM apalis.jobs WHERE status = 'Running' GROUP BY job_type
           ), recent AS (
               SELECT job_type AS name, count(*) FILTER (WHERE status = 'Done') AS done
               FROM (SELECT job_type, status FROM apalis.jobs ORDER BY id DESC LIMIT $2) AS newest GROUP BY job_type
           ), working AS (
               SELECT name, count(*) AS workers, count(claim_errors -> name) AS failing,
                      max(claim_errors -> name ->> 'error') AS claim_error
               FROM apalis.workers CROSS JOIN unnest(string_to_array(layers, ',')) AS name
               WHERE abs(extract(epoch FROM last_seen) - extract(epoch FROM now())) < extract(epoch FROM lease)
               GROUP BY name
           ), known AS ("#
                + $known
                + r#")
           SELECT known.name AS "name!", paused_queues.paused_at AS "paused_at?", paused_queues.paused_by AS "paused_by?",
                  paused_queues.reason AS "reason?", paused_queues.resume_at AS "resume_at?",
                  coalesce(working.workers, 0) AS "workers!", coalesce(working.failing, 0) AS "failing_workers!",
                  working.claim_error AS "claim_error?", coalesce(estimate.waiting, due.jobs + later.jobs) AS "waiting!",
                  CASE WHEN due.jobs < $1 THEN due.jobs
                       ELSE greatest(estimate.waiting - estimate.later, $1) END AS "due!",
                  CASE WHEN due.jobs + later.jobs >= $1 THEN estimate.queue IS NOT NULL END AS depth_is,
                  coalesce(running.jobs, 0) AS "running!",
                  (SELECT count(*) FROM (SELECT FROM apalis.jobs WHERE job_type = known.name AND status = 'Killed'
                                         LIMIT $2) AS buried) AS "dead!",
                  coalesce(recent.done, 0) AS "recently_done!",
                  extract(epoch FROM clock_timestamp() - soonest.run_at)::float8 AS late
           FROM known
           LEFT JOIN paused_queues USING (name)
           LEFT JOIN running USING (name)
           LEFT JOIN recent USING (name)
           LEFT JOIN working USING (name)
           -- Due jobs are counted first, then as many others as the limit leaves.
           CROSS JOIN LATERAL (
               SELECT count(*) AS jobs
               FROM (SELECT FROM (VALUES (1), (0), (-1)) AS level (priority)
                     CROSS JOIN LATERAL (
                         SELECT FROM apalis.jobs
                         WHERE job_type = known.name AND status = 'Pending' AND priority = level.priority AND run_at <= now()
                         ORDER BY run_at LIMIT $1
                     ) AS job
                     LIMIT $1) AS counted
           ) AS due
           CROSS JOIN LATERAL (
               SELECT count(*) AS jobs
               FROM (SELECT FROM (VALUES (1), (0), (-1)) AS level (priority)
                     CROSS JOIN LATERAL (
                         SELECT FROM apalis.jobs
                         WHERE job_type = known.name AND status = 'Pending' AND priority = level.priority AND run_at > now()
                         ORDER BY run_at LIMIT $1
                     ) AS job
                     LIMIT $1 - due.jobs) AS counted
           ) AS later
           CROSS JOIN LATERAL (
               SELECT min(first.run_at) AS run_at
               FROM (VALUES (1), (0), (-1)) AS level (priority)
               CROSS JOIN LATERAL (
                   SELECT greatest(least(run_at, now() + interval '100 years'), now() - interval '100 years') AS run_at
                   FROM apalis.jobs
                   WHERE job_type = known.name AND status = 'Pending' AND priority = level.priority
                   ORDER BY jobs.run_at LIMIT 1
               ) AS first
           ) AS soonest
           LEFT JOIN LATERAL (
               SELECT queue, waiting, later FROM estimated_depths WHERE queue = known.name AND due.jobs + later.jobs >= $1
           ) AS estimate ON estimate.waiting >= $1
           WHERE known.name IS NOT NULL
           ORDER BY known.name"#
            $(, $parameter)*
        )
    };
}

/// Lists every queue that has jobs, live workers or a pause, and those of `known`. Each name costs one index look-up.
/// `waiting` is the limit of the counts of waiting jobs, and `limit` that of dead and finished ones: with 0 none are read.
pub(crate) async fn queues(pool: &Pool, waiting: i64, limit: i64, known: &[String]) -> Result<Vec<QueueStatus>> {
    queue_status!(
        r#"WITH RECURSIVE waiting AS (
               (SELECT job_type FROM apalis.jobs WHERE status = 'Pending' ORDER BY job_type LIMIT 1)
               UNION ALL
               SELECT (SELECT job_type FROM apalis.jobs WHERE status = 'Pending' AND job_type > waiting.job_type
                       ORDER BY job_type LIMIT 1)
               FROM waiting WHERE waiting.job_type IS NOT NULL
           ), dead AS (
               (SELECT job_type FROM apalis.jobs WHERE status = 'Killed' ORDER BY job_type LIMIT 1)
               UNION ALL
               SELECT (SELECT job_type FROM apalis.jobs WHERE status = 'Killed' AND job_type > dead.job_type
                       ORDER BY job_type LIMIT 1)
               FROM dead WHERE dead.job_type IS NOT NULL
           ), "#,
        "SELECT job_type AS name FROM waiting UNION SELECT job_type FROM dead UNION SELECT name FROM running
         UNION SELECT name FROM recent UNION SELECT name FROM working UNION SELECT name FROM paused_queues
         UNION SELECT unnest($3::text[])",
        waiting,
        limit,
        known
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Reads one queue, whether it is known or not.
pub(crate) async fn queue(pool: &Pool, name: &str, limit: i64) -> Result<QueueStatus> {
    queue_status!("WITH ", "SELECT $3::text AS name", limit, limit, name).fetch_one(repeatable(pool)).await
}

/// A job that is locked until the transaction ends.
pub(crate) struct Locked {
    pub queue: String,
    pub status: String,
    pub payload: Vec<u8>,
    /// How often operators have replayed it.
    pub replays: i32,
}

/// Locks a job. Meanwhile claims skip it, and the write of its result waits.
pub(crate) async fn lock(tx: &mut Transaction, id: &str) -> Result<Option<Locked>> {
    sqlx::query_as!(
        Locked,
        r#"SELECT job_type AS queue, status, job AS payload, coalesce(replays, 0) AS "replays!"
           FROM apalis.jobs WHERE id = $1 FOR UPDATE"#,
        id,
    )
    .fetch_optional(&mut *tx)
    .await
}

/// The process of the events that actions count themselves, in `queue_minutes`.
const PROCESS: &str = "operators";

/// Counts an event of a job in the transaction of the action that causes it. Actions on a queue share one row for each minute,
/// so this is their last write: the row is locked until the commit only.
pub(crate) async fn count(tx: &mut Transaction, queue: &str, event: Event) -> Result<()> {
    queue_minutes::add(&mut *tx, PROCESS, &[Taken::events(queue, event, 1)]).await
}

/// Adds the event `failed` to a job: how its record had failed, before a replay resets it.
pub(crate) async fn keep_failure(tx: &mut Transaction, id: &str, at: OffsetDateTime, error: &str) -> Result<()> {
    sqlx::query!(
        "UPDATE apalis.jobs
         SET events = CASE WHEN jsonb_typeof(events) IS DISTINCT FROM 'array' THEN '[]'
                           WHEN jsonb_array_length(events) >= $4 THEN events - 0 ELSE events END
                 || jsonb_build_object('at', $2::timestamptz, 'event', 'failed', 'error', $3::text)
         WHERE id = $1",
        id,
        at,
        error,
        EVENTS_KEPT,
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Cancels a locked waiting job, and adds it to the queue's total.
pub(crate) async fn cancel(tx: &mut Transaction, id: &str, error: &str) -> Result<()> {
    sqlx::query!(
        "WITH cancelled AS (
             UPDATE apalis.jobs
             SET status = 'Cancelled', done_at = now(), last_result = jsonb_build_object('Err', $2::text),
                 errors = CASE WHEN jsonb_typeof(errors) = 'array' THEN errors ELSE '[]' END
                     || jsonb_build_object('at', now(), 'run', attempts, 'worker', NULL, 'error', $2::text)
             WHERE id = $1 AND status = 'Pending'
             RETURNING job_type
         )
         INSERT INTO queues (name, cancelled) SELECT job_type, 1 FROM cancelled
         ON CONFLICT (name) DO UPDATE SET cancelled = queues.cancelled + 1",
        id,
        error,
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Makes a locked dead or cancelled job wait again, due now and with all its attempts. Its errors and its token are
/// kept, and the replay is counted. Returns `false` if another job with its key waits or runs.
pub(crate) async fn replay(tx: &mut Transaction, id: &str) -> Result<bool> {
    let replayed = sqlx::query!(
        "WITH over AS (DELETE FROM cancellations WHERE job_id = $1)
         UPDATE apalis.jobs
         SET status = 'Pending', run_at = now(), done_at = NULL, last_result = NULL, failures = 0, crashes = 0,
             replays = least(coalesce(replays, 0), 2147483646) + 1
         WHERE id = $1 AND status IN ('Killed', 'Cancelled')
           AND NOT EXISTS (SELECT FROM apalis.jobs AS live
                           WHERE live.job_type = jobs.job_type AND live.idempotency_key = jobs.idempotency_key
                             AND live.status IN ('Pending', 'Running'))",
        id,
    )
    .execute(&mut *tx)
    .await?;
    Ok(replayed.rows_affected() == 1)
}

/// Requests the cancellation of a running job, and notifies all workers with the commit.
pub(crate) async fn request_cancellation(tx: &mut Transaction, id: &str) -> Result<()> {
    sqlx::query!(
        "WITH request AS (INSERT INTO cancellations (job_id) VALUES ($1) ON CONFLICT (job_id) DO NOTHING)
         SELECT pg_notify($2, $3)",
        id,
        CHANNEL,
        CANCELLATIONS,
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Returns the jobs with an open cancellation request, and deletes the requests of ended jobs. The table is nearly
/// always empty, so this is cheap.
pub(crate) async fn cancellations(pool: &Pool) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        "WITH over AS (
             DELETE FROM cancellations AS request
             WHERE NOT EXISTS (SELECT FROM apalis.jobs WHERE id = request.job_id AND status IN ('Pending', 'Running'))
             RETURNING job_id
         )
         SELECT job_id FROM cancellations WHERE job_id NOT IN (SELECT job_id FROM over)"
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Whether this job has an open cancellation request.
pub(crate) async fn is_cancelled(pool: &Pool, id: &str) -> Result<bool> {
    sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM cancellations WHERE job_id = $1) AS "exists!""#, id)
        .fetch_one(repeatable(pool))
        .await
}

/// Whether a queue has jobs that wait, run or are dead, or live workers, or was ever paused.
pub(crate) async fn queue_exists(executor: impl PgExecutor<'_>, queue: &str) -> Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM apalis.jobs WHERE job_type = $1 AND status = 'Pending')
               OR EXISTS (SELECT FROM apalis.jobs WHERE job_type = $1 AND status = 'Running')
               OR EXISTS (SELECT FROM apalis.jobs WHERE job_type = $1 AND status = 'Killed')
               OR EXISTS (SELECT FROM apalis.workers WHERE $1 = ANY(string_to_array(layers, ',')))
               OR EXISTS (SELECT FROM queues WHERE name = $1) AS "exists!""#,
        queue,
    )
    .fetch_one(executor)
    .await
}

/// Pauses a queue, or changes the reason, the actor and the end of its pause, which is a time or a number of seconds from
/// now. Returns the end; the outer `None` if it would not be after now, and then nothing changes.
pub(crate) async fn pause(
    executor: impl PgExecutor<'_>,
    queue: &str,
    at: Option<OffsetDateTime>,
    after_s: Option<f64>,
    order: &Order,
) -> Result<Option<Option<ReadTime>>> {
    sqlx::query_scalar!(
        r#"INSERT INTO queues (name, paused_at, paused_by, reason, resume_at)
           SELECT $1, now(), $2, $3, pause.ends_at
           FROM (SELECT coalesce($4, now() + make_interval(secs => $5)) AS ends_at) AS pause
           WHERE pause.ends_at IS NULL OR pause.ends_at > now()
           ON CONFLICT (name) DO UPDATE
           SET paused_at = coalesce((SELECT paused_at FROM paused_queues WHERE name = $1), now()), paused_by = $2,
               reason = $3, resume_at = excluded.resume_at
           RETURNING resume_at AS "resume_at: ReadTime""#,
        queue,
        order.actor,
        order.reason,
        at,
        after_s,
    )
    .fetch_optional(executor)
    .await
}

/// Resumes a queue, and notifies all workers with the commit. Returns whether it was paused.
pub(crate) async fn resume(executor: impl PgExecutor<'_>, queue: &str) -> Result<bool> {
    let resumed = sqlx::query_scalar!(
        r#"WITH resumed AS (
               UPDATE queues SET paused_at = NULL, paused_by = NULL, reason = NULL, resume_at = NULL
               WHERE name IN (SELECT name FROM paused_queues WHERE name = $1)
               RETURNING name
           )
           SELECT pg_notify($2, name)::text AS "announced" FROM resumed"#,
        queue,
        CHANNEL,
    )
    .fetch_optional(executor)
    .await?;
    Ok(resumed.is_some())
}
