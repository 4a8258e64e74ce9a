//! The SQL of why a job is not running.

use sqlx::Result;

use runtime::{db::Pool, executor::repeatable};

/// Jobs ahead are counted up to this number.
pub(crate) const MAX_AHEAD: i64 = 1000;

/// What decides when a job runs, apart from the state of the workers.
pub(crate) struct Facts {
    /// Why its queue is paused, if it is.
    pub paused: Option<String>,
    pub paused_by: Option<String>,
    /// The reason of the last run's snooze, empty without a reason; `None` if it did not end in a snooze.
    pub snoozed: Option<String>,
    pub max_attempts: Option<i32>,
    /// The workers with a row that run its queue.
    pub workers: Vec<String>,
    /// Due jobs of its queue that are claimed before it, up to [`MAX_AHEAD`].
    pub ahead: i64,
    /// The number of its [`FairKey`](crate::FairKey).
    pub fair_key: Option<i64>,
    /// Running jobs of its queue and key.
    pub running_of_key: i64,
    /// Due jobs of its queue and key that are claimed before it, up to [`MAX_AHEAD`].
    pub ahead_of_key: i64,
    /// Another job of its queue that waits or runs, and has its unique key.
    pub key_holder: Option<String>,
}

/// Reads what decides when a job runs.
pub(crate) async fn facts(pool: &Pool, id: &str) -> Result<Option<Facts>> {
    sqlx::query_as!(
        Facts,
        r#"SELECT pause.reason AS "paused?", pause.paused_by AS "paused_by?",
                  CASE WHEN last_result ? 'Snoozed' THEN coalesce(last_result ->> 'Snoozed', '') END AS snoozed, max_attempts,
                  ARRAY(SELECT worker.id FROM apalis.workers AS worker
                        WHERE job.job_type = ANY(string_to_array(worker.layers, ','))) AS "workers!",
                  (SELECT count(*) FROM (
                       (SELECT FROM apalis.jobs WHERE status = 'Pending' AND job_type = job.job_type
                            AND priority = job.priority AND run_at < least(job.run_at, now()) LIMIT $2)
                       UNION ALL
                       (SELECT FROM apalis.jobs WHERE status = 'Pending' AND job_type = job.job_type
                            AND priority > job.priority AND run_at <= now() LIMIT $2)
                       LIMIT $2) AS earlier) AS "ahead!",
                  fair_key,
                  (SELECT count(*) FROM apalis.jobs
                   WHERE status = 'Running' AND job_type = job.job_type AND fair_key = job.fair_key)
                      AS "running_of_key!",
                  (SELECT count(*) FROM (
                       (SELECT FROM apalis.jobs WHERE status = 'Pending' AND job_type = job.job_type
                            AND priority = job.priority AND fair_key = job.fair_key
                            AND run_at < least(job.run_at, now()) LIMIT $2)
                       UNION ALL
                       (SELECT FROM apalis.jobs WHERE status = 'Pending' AND job_type = job.job_type
                            AND priority > job.priority AND fair_key = job.fair_key AND run_at <= now() LIMIT $2)
                       LIMIT $2) AS earlier) AS "ahead_of_key!",
                  (SELECT live.id FROM apalis.jobs AS live
                   WHERE live.job_type = job.job_type AND live.idempotency_key = job.idempotency_key
                     AND live.status IN ('Pending', 'Running') AND live.id <> job.id LIMIT 1) AS key_holder
           FROM apalis.jobs AS job LEFT JOIN paused_queues AS pause ON pause.name = job.job_type
           WHERE job.id = $1"#,
        id,
        MAX_AHEAD,
    )
    .fetch_optional(repeatable(pool))
    .await
}
