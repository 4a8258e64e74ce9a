//! The SQL of the poller: which queues have due jobs, when the next ones are due, and which jobs are below a mark.
//!
//! Each part of these statements reads the end of a range of `jobs_ready`.

use sqlx::{Result, types::time::OffsetDateTime};

use crate::{job::Priority, low_water::Marks};
use runtime::{db::Pool, executor::repeatable};

/// Queues and their marks, column by column.
struct MarkedQueues<'q> {
    queues: Vec<&'q str>,
    high: Vec<Option<OffsetDateTime>>,
    normal: Vec<Option<OffsetDateTime>>,
    low: Vec<Option<OffsetDateTime>>,
}

impl<'q> MarkedQueues<'q> {
    fn of(queues: &[(&'q str, Marks)]) -> Self {
        let marks = |priority| queues.iter().map(|(_, marks)| marks.of(priority)).collect();
        Self {
            queues: queues.iter().map(|(queue, _)| *queue).collect(),
            high: marks(Priority::High),
            normal: marks(Priority::Normal),
            low: marks(Priority::Low),
        }
    }
}

/// The due times of one queue.
#[derive(Debug)]
pub(crate) struct DueCheck {
    pub queue: String,
    /// Whether it has a job that is due.
    pub is_due: bool,
    /// Seconds until the first later job is due, from the end of the statement; negative if that took longer.
    pub next: Option<f64>,
    /// The time of the check, by the database's clock.
    pub now: OffsetDateTime,
    /// Whether the session can only read, as after a failover. The same in every row.
    pub is_read_only: bool,
}

/// Checks these queues: whether a job that is not below its mark is due, and when the next one will be, at most a day
/// from now.
pub(crate) async fn check_due(pool: &Pool, queues: &[(&str, Marks)]) -> Result<Vec<DueCheck>> {
    let MarkedQueues { queues, high, normal, low } = MarkedQueues::of(queues);
    sqlx::query_as!(
        DueCheck,
        r#"SELECT queue AS "queue!", bool_or(due.is_due) AS "is_due!",
                  extract(epoch FROM min(least(later.run_at, now() + interval '1 day')) - clock_timestamp())::float8 AS next,
                  now() AS "now!",
                  pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS "is_read_only!"
           FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[])
                AS checked (queue, high, normal, low)
           CROSS JOIN LATERAL (VALUES (1, high), (0, normal), (-1, low)) AS level (priority, mark)
           CROSS JOIN LATERAL (
               SELECT EXISTS (SELECT FROM apalis.jobs WHERE job_type = queue AND status = 'Pending'
                              AND priority = level.priority
                              AND run_at >= coalesce(level.mark, '-infinity') AND run_at <= now()) AS is_due
           ) AS due
           LEFT JOIN LATERAL (
               SELECT run_at FROM apalis.jobs
               WHERE job_type = queue AND status = 'Pending' AND priority = level.priority AND run_at > now()
               ORDER BY run_at LIMIT 1
           ) AS later ON true
           WHERE queue NOT IN (SELECT name FROM paused_queues)
           GROUP BY queue"#,
        &queues as &[&str],
        &high as &[Option<OffsetDateTime>],
        &normal as &[Option<OffsetDateTime>],
        &low as &[Option<OffsetDateTime>],
    )
    .fetch_all(repeatable(pool))
    .await
}

/// The oldest waiting job below a mark.
#[derive(Debug)]
pub(crate) struct MissedJob {
    pub queue: String,
    pub priority: i32,
    /// Its due time; `None` if that is more than 30 days ago.
    pub due: Option<OffsetDateTime>,
}

/// Returns the oldest waiting job below each mark of these queues.
pub(crate) async fn find_missed(pool: &Pool, queues: &[(&str, Marks)]) -> Result<Vec<MissedJob>> {
    let MarkedQueues { queues, high, normal, low } = MarkedQueues::of(queues);
    sqlx::query_as!(
        MissedJob,
        r#"SELECT queue AS "queue!", level.priority AS "priority!",
                  CASE WHEN missed.run_at > now() - interval '30 days' THEN missed.run_at END AS due
           FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[])
                AS swept (queue, high, normal, low)
           CROSS JOIN LATERAL (VALUES (1, high), (0, normal), (-1, low)) AS level (priority, mark)
           CROSS JOIN LATERAL (
               SELECT run_at FROM apalis.jobs
               WHERE job_type = queue AND status = 'Pending' AND priority = level.priority AND run_at < level.mark
               ORDER BY run_at LIMIT 1
           ) AS missed
           WHERE queue NOT IN (SELECT name FROM paused_queues)"#,
        &queues as &[&str],
        &high as &[Option<OffsetDateTime>],
        &normal as &[Option<OffsetDateTime>],
        &low as &[Option<OffsetDateTime>],
    )
    .fetch_all(repeatable(pool))
    .await
}
