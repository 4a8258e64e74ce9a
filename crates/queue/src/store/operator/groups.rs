//! The SQL of the groups of dead letters.

use sqlx::Result;

use crate::ReadTime;
use runtime::{db::Pool, executor::repeatable};

pub(crate) struct GroupRow {
    pub queue: String,
    pub group: String,
    pub count: i64,
    pub recent: i64,
    pub first_died_at: Option<ReadTime>,
    pub last_died_at: Option<ReadTime>,
    pub sample_error: Option<String>,
    pub oldest_job: String,
    pub newest_job: String,
}

/// Finds the groups of one queue's dead letters, or of all, by a skip scan of `jobs_dead_by_error`: one look-up for each
/// group. Counts stop at `limit`, and there are at most 200 groups.
pub(crate) async fn dead_groups(pool: &Pool, queue: Option<&str>, limit: i64) -> Result<Vec<GroupRow>> {
    sqlx::query_as!(
        GroupRow,
        r#"WITH RECURSIVE found (job_type, error_group) AS (
               (SELECT job_type, coalesce(error_group, '') FROM apalis.jobs
                WHERE status = 'Killed' AND ($1::text IS NULL OR job_type = $1)
                ORDER BY job_type, coalesce(error_group, '') LIMIT 1)
               UNION ALL
               SELECT next.job_type, next.error_group
               FROM found CROSS JOIN LATERAL (
                   SELECT job_type, coalesce(error_group, '') AS error_group FROM apalis.jobs
                   WHERE status = 'Killed' AND (job_type, coalesce(error_group, '')) > (found.job_type, found.error_group)
                     AND ($1::text IS NULL OR job_type = $1)
                   ORDER BY job_type, coalesce(error_group, '') LIMIT 1
               ) AS next
           )
           SELECT found.job_type AS "queue!", found.error_group AS "group!", counted.jobs AS "count!",
                  newest.recent AS "recent!", oldest.done_at AS "first_died_at?: ReadTime",
                  newest.last_died_at AS "last_died_at: ReadTime", sample.error AS sample_error,
                  oldest.id AS "oldest_job!", sample.id AS "newest_job!"
           FROM (SELECT * FROM found LIMIT 200) AS found
           CROSS JOIN LATERAL (
               SELECT count(*) AS jobs FROM (SELECT FROM apalis.jobs WHERE status = 'Killed' AND job_type = found.job_type
                   AND coalesce(error_group, '') = found.error_group LIMIT $2) AS dead
           ) AS counted
           CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE done_at > now() - interval '15 minutes') AS recent, max(done_at) AS last_died_at
               FROM (SELECT done_at FROM apalis.jobs WHERE status = 'Killed' AND job_type = found.job_type
                         AND coalesce(error_group, '') = found.error_group ORDER BY id DESC LIMIT 1000) AS latest
           ) AS newest
           CROSS JOIN LATERAL (
               SELECT id, left(errors -> -1 ->> 'error', 1000) AS error FROM apalis.jobs WHERE status = 'Killed'
                   AND job_type = found.job_type AND coalesce(error_group, '') = found.error_group ORDER BY id DESC LIMIT 1
           ) AS sample
           CROSS JOIN LATERAL (
               SELECT id, done_at FROM apalis.jobs WHERE status = 'Killed' AND job_type = found.job_type
                   AND coalesce(error_group, '') = found.error_group ORDER BY id LIMIT 1
           ) AS oldest"#,
        queue,
        limit,
    )
    .fetch_all(repeatable(pool))
    .await
}
