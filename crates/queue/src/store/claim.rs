//! The SQL of claims.

use sqlx::{PgExecutor, Result, types::time::OffsetDateTime};

use crate::{fair_key::FairKey, job::Priority, low_water::Marks};
use runtime::{
    db::Pool,
    executor::{Transaction, once, repeatable},
};

/// A job that this worker has claimed for one run.
#[derive(Debug, Clone)]
pub(crate) struct Claimed {
    pub id: String,
    pub payload: Vec<u8>,
    /// The attempt number, part of the fencing token.
    pub token: i32,
    pub failures: i32,
    /// Consecutive crashes before this run.
    pub crashes: i32,
    /// When it was claimed, by the database's clock.
    pub claimed_at: OffsetDateTime,
    pub priority: i32,
    /// Its due time; `None` if that is more than 30 days ago.
    pub due: Option<OffsetDateTime>,
    /// The number of its [`FairKey`].
    pub fair_key: Option<i64>,
    pub correlation_id: Option<String>,
    pub traceparent: Option<String>,
}

impl Claimed {
    /// Seconds from its due time to its claim, by the database's clock; at most 30 days, and negative after the clock has gone
    /// back.
    pub(crate) fn waited(&self) -> f64 {
        const LONGEST: f64 = 30.0 * 86400.0;
        self.due.map_or(LONGEST, |due| (self.claimed_at - due).as_seconds_f64())
    }
}

/// The UPDATE that claims the jobs whose rows a statement selects and locks.
///
/// The lease is no condition here. The worker checks it by its own monotonic clock before it claims, and `last_seen`
/// comes from the database's clock, which may step. If a silent worker claims jobs, the next rescue takes them, unless
/// the worker renews its lease.
///
/// An odd row of another program must not fail the claim of all others. So a token that cannot grow restarts at 1, and
/// a due time that is long past is not returned: it may be infinite.
///
/// Rows are updated by their `ctid`. This is safe because the same statement locks them, and it saves 500 look-ups in
/// the primary key (11.0 → 8.6 us per job). A row that another transaction has just changed is not visible to this
/// statement and is left to the next claim.
macro_rules! claim {
    ($rows:tt, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Claimed,
            r#"UPDATE apalis.jobs AS job
               SET status = 'Running', lock_by = $1, lock_at = now(),
                   attempts = CASE attempts WHEN 2147483647 THEN 1 ELSE attempts + 1 END
               WHERE ctid = ANY(ARRAY( "# + $rows + r#" ))
               RETURNING job.id, job.job AS payload, job.attempts AS token, job.failures, job.crashes,
                         clock_timestamp() AS "claimed_at!",
                         job.priority AS "priority!",
                         CASE WHEN job.run_at > now() - interval '30 days' THEN job.run_at END AS due,
                         job.fair_key,
                         job.metadata -> 'correlation_id' AS correlation_id,
                         job.metadata -> 'traceparent' AS traceparent"#,
            $($argument),*
        )
    };
}

/// Claims up to `limit` due jobs of a queue that are not below its marks: highest priority first, then by due time. Claims
/// none while the queue is paused, which is checked once per claim.
///
/// The three priorities are read one by one, so that each is a range of `jobs_ready` in index order. One ordered scan
/// over all priorities would read every job that is not yet due before it finds that none is due.
pub(crate) async fn claim(pool: &Pool, worker: &str, queue: &str, marks: Marks, limit: i64) -> Result<Vec<Claimed>> {
    claim!(
        "SELECT ready.ctid
         FROM (VALUES (1, $4::timestamptz), (0, $5), (-1, $6)) AS level (priority, mark)
         CROSS JOIN LATERAL (
             SELECT ctid FROM apalis.jobs
             WHERE job_type = $2 AND status = 'Pending' AND priority = level.priority
               AND run_at >= coalesce(level.mark, '-infinity') AND run_at <= now()
             ORDER BY run_at LIMIT $3 FOR UPDATE SKIP LOCKED
         ) AS ready
         WHERE NOT EXISTS (SELECT FROM paused_queues WHERE name = $2)
         LIMIT $3",
        worker,
        queue,
        limit,
        marks.of(Priority::High),
        marks.of(Priority::Normal),
        marks.of(Priority::Low),
    )
    .fetch_all(once(pool))
    .await
}

/// Returns the ids of due jobs that [`claim`] would claim, in its order, without those that are left out. Locks none.
pub(crate) async fn find_due(
    pool: &Pool,
    queue: &str,
    marks: Marks,
    limit: i64,
    left_out: &[String],
) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"SELECT ready.id AS "id!"
         FROM (VALUES (1, $3::timestamptz), (0, $4), (-1, $5)) AS level (priority, mark)
         CROSS JOIN LATERAL (
             SELECT id FROM apalis.jobs
             WHERE job_type = $1 AND status = 'Pending' AND priority = level.priority
               AND run_at >= coalesce(level.mark, '-infinity') AND run_at <= now() AND id <> ALL($6)
             ORDER BY run_at LIMIT $2
         ) AS ready
         LIMIT $2"#,
        queue,
        limit,
        marks.of(Priority::High),
        marks.of(Priority::Normal),
        marks.of(Priority::Low),
        left_out,
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Claims those of these jobs that are due, as [`claim`] does. For jobs of which the database refuses some.
///
/// Only the primary key is written so that an index fits. With an indexable condition on `status`, a generic plan may read
/// the whole backlog of the queue in `jobs_ready` to find a few ids.
pub(crate) async fn claim_some(pool: &Pool, worker: &str, queue: &str, ids: &[String]) -> Result<Vec<Claimed>> {
    claim!(
        "SELECT ctid FROM apalis.jobs
         WHERE id = ANY($3) AND job_type = $2 AND status || '' = 'Pending' AND run_at <= now()
           AND NOT EXISTS (SELECT FROM paused_queues WHERE name = $2)
         FOR UPDATE SKIP LOCKED",
        worker,
        queue,
        ids,
    )
    .fetch_all(once(pool))
    .await
}

/// A key with waiting jobs of one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DueKey {
    pub priority: i32,
    pub key: i64,
    /// Whether one of them is due.
    pub is_due: bool,
    /// Its running jobs of all priorities, if they were counted.
    pub running: i64,
}

/// What a key may get in one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub priority: i32,
    pub key: i64,
    pub jobs: i64,
}

/// Claims due jobs of these keys: of each up to its share, and up to `limit` in total, in the order of the shares. With
/// `per_key`, a key has at most so many running jobs afterwards. This holds only under [`lock_claims`], and with one
/// share for each key.
pub(crate) async fn claim_shares(
    executor: impl PgExecutor<'_>,
    worker: &str,
    queue: &str,
    shares: &[Share],
    per_key: Option<i64>,
    limit: i64,
) -> Result<Vec<Claimed>> {
    let priorities: Vec<i32> = shares.iter().map(|share| share.priority).collect();
    let keys: Vec<i64> = shares.iter().map(|share| share.key).collect();
    let jobs: Vec<i64> = shares.iter().map(|share| share.jobs).collect();
    claim!(
        "SELECT ready.ctid
         FROM unnest($3::int4[], $4::int8[], $5::int8[]) AS share (priority, key, jobs)
         CROSS JOIN LATERAL (
             SELECT ctid FROM apalis.jobs
             WHERE job_type = $2 AND status = 'Pending' AND priority = share.priority AND fair_key = share.key
               AND run_at <= now()
             ORDER BY run_at
             LIMIT CASE WHEN $6::int8 IS NULL THEN share.jobs ELSE least(share.jobs, greatest(0, $6 - (
                 SELECT count(*) FROM apalis.jobs
                 WHERE job_type = $2 AND status = 'Running' AND fair_key = share.key))) END
             FOR UPDATE SKIP LOCKED
         ) AS ready
         WHERE NOT EXISTS (SELECT FROM paused_queues WHERE name = $2)
         LIMIT $7",
        worker,
        queue,
        &priorities,
        &keys,
        &jobs,
        per_key,
        limit,
    )
    .fetch_all(executor)
    .await
}

/// Lets only this transaction claim jobs of a queue that has a limit for each key. The next statement then counts all jobs
/// that others have claimed.
pub(crate) async fn lock_claims(tx: &mut Transaction, queue: &str) -> Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended('millrace claims ' || $1, 0))", queue)
        .execute(&mut *tx)
        .await?;
    Ok(())
}

/// Returns up to `limit` keys of each priority that have waiting jobs: those after `after`, ascending, the highest
/// priority first. With `count_running` it also counts the running jobs of keys with due jobs.
///
/// Each key is one look-up in `jobs_ready_by_key`, however many jobs it has.
pub(crate) async fn find_keys(
    pool: &Pool,
    queue: &str,
    after: [i64; 3],
    limit: i64,
    count_running: bool,
) -> Result<Vec<DueKey>> {
    sqlx::query_as!(
        DueKey,
        r#"SELECT level.priority AS "priority!", step.key AS "key!", step.run_at <= now() AS "is_due!",
                  CASE WHEN $6 AND step.run_at <= now() THEN (
                      SELECT count(*) FROM apalis.jobs
                      WHERE job_type = $1 AND status = 'Running' AND fair_key = step.key) ELSE 0 END AS "running!"
           FROM (VALUES (1, $2::int8), (0, $3), (-1, $4)) AS level (priority, after)
           CROSS JOIN LATERAL (
               WITH RECURSIVE step AS (
                   SELECT 0::int8 AS number, level.after AS key, NULL::timestamptz AS run_at
                   UNION ALL
                   SELECT step.number + 1, next.fair_key, next.run_at
                   FROM step
                   CROSS JOIN LATERAL (
                       SELECT fair_key, run_at FROM apalis.jobs
                       WHERE job_type = $1 AND status = 'Pending' AND priority = level.priority
                         AND fair_key > step.key
                       ORDER BY fair_key, run_at LIMIT 1
                   ) AS next
                   WHERE step.number < $5
               )
               SELECT key, run_at FROM step WHERE number > 0
           ) AS step"#,
        queue,
        after[0],
        after[1],
        after[2],
        limit,
        count_running,
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Gives waiting jobs without a key, such as those of an older release, each a key of its own. A claim by keys would not find
/// them. Changes up to `limit` jobs and returns their number.
pub(crate) async fn add_keys(pool: &Pool, queue: &str, limit: i64) -> Result<u64> {
    let done = sqlx::query!(
        "UPDATE apalis.jobs SET fair_key = greatest(hashtextextended(id, 0), $3)
         WHERE id = ANY(ARRAY(
             SELECT id FROM apalis.jobs WHERE job_type = $1 AND status = 'Pending' AND fair_key IS NULL
             LIMIT $2 FOR UPDATE SKIP LOCKED))",
        queue,
        limit,
        FairKey::LEAST.number(),
    )
    .execute(repeatable(pool))
    .await?;
    Ok(done.rows_affected())
}
