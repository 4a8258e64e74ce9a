//! The SQL that lists jobs and shows one with all its details.
//!
//! Finished jobs have no index except the primary key, because another one would slow down every result. So a page is
//! read from the newest [`WINDOW`] ids. Older jobs come from the indexes of the other states. Both reads have a bound,
//! however many jobs there are.

use sqlx::{Result, types::JsonValue};

use crate::storable::ReadTime;
use runtime::{db::Pool, executor::repeatable};

/// The number of newest ids that one page reads. With 10,000,000 finished jobs, a page without a match takes 60 ms.
pub(crate) const WINDOW: i64 = 100_000;
/// The number of older waiting jobs that one page reads of each queue: those due first.
pub(crate) const SOONEST: i64 = 10_000;

/// Sorts after every id: the last Unicode character.
pub(crate) const END: &str = "\u{10FFFF}";

/// A row of a list of jobs.
pub struct JobRow {
    pub id: String,
    pub queue: String,
    pub status: String,
    pub priority: i32,
    pub claims: i32,
    pub failures: i32,
    pub crashes: i32,
    pub due_at: ReadTime,
    /// The database's clock.
    pub now: ReadTime,
    pub worker: Option<String>,
    pub started_at: Option<ReadTime>,
    pub ended_at: Option<ReadTime>,
    pub last_error: Option<String>,
    pub error_group: Option<String>,
    pub key: Option<String>,
    pub correlation_id: Option<String>,
    pub traceparent: Option<String>,
}

/// Which jobs to read.
#[derive(Default)]
pub(crate) struct Page<'a> {
    pub queue: Option<&'a str>,
    pub status: Option<&'a str>,
    /// A text that the last error contains.
    pub error: Option<&'a str>,
    /// A group of errors; empty for none.
    pub group: Option<&'a str>,
    pub worker: Option<&'a str>,
    /// The least number of claims.
    pub attempts: Option<i32>,
    pub key: Option<&'a str>,
    /// Only ids before this one; [`END`] for all.
    pub before: &'a str,
    pub limit: i64,
}

/// Runs `$query`, a macro of sqlx, with a statement that selects the columns of a [`JobRow`], between two other parts.
macro_rules! select {
    ($query:ident!($($row:ident)?), [$($with:tt)?], [$($rest:tt)+], $($argument:expr),+) => {
        sqlx::$query!(
            $($row,)?
            $($with +)?
            r#"SELECT id AS "id!", job_type AS "queue!", status AS "status!", priority AS "priority!",
                      attempts AS "claims!", failures AS "failures!", crashes AS "crashes!", run_at AS "due_at!: ReadTime",
                      clock_timestamp() AS "now!: ReadTime", lock_by AS worker, lock_at AS "started_at: ReadTime",
                      done_at AS "ended_at: ReadTime", errors -> -1 ->> 'error' AS last_error, error_group,
                      idempotency_key AS key, metadata -> 'correlation_id' AS correlation_id,
                      metadata -> 'traceparent' AS traceparent"#
                + $($rest)+,
            $($argument),+
        )
    };
}

/// Selects jobs by the conditions of a [`Page`], which stand between the two texts: `$1` queue, `$2` before, `$3` error,
/// `$4` limit, `$5` group, `$6` worker, `$7` attempts, `$8` key. The text is made of literals, because the planner uses a
/// partial index only for a literal condition.
macro_rules! page {
    ([$($from:tt)+], [$($to:tt)+], $page:expr, $pool:expr $(, $more:expr)*) => {
        select!(
            query_as!(JobRow),
            [],
            [
                "
               FROM "
                    + $($from)+
                    + " ($1::text IS NULL OR job_type = $1) AND id < $2
                    AND ($3::text IS NULL OR position($3 IN errors #>> '{-1,error}') > 0)
                    AND ($5::text IS NULL OR coalesce(error_group, '') = $5) AND ($6::text IS NULL OR lock_by = $6)
                    AND ($7::int4 IS NULL OR attempts >= $7) AND ($8::text IS NULL OR idempotency_key = $8) "
                    + $($to)+
                    + " ORDER BY id DESC LIMIT $4"
            ],
            $page.queue,
            $page.before,
            $page.error,
            $page.limit,
            $page.group,
            $page.worker,
            $page.attempts,
            $page.key
            $(, $more)*
        )
        .fetch_all(repeatable($pool))
        .await
    };
}

/// Gives a macro the number by which [`WINDOW`] is divided, as SQL with the queue as `$1`: 10 for a queue in which nothing
/// waits, and in which nothing has happened as far as the counts of 400 days know. It has no finished jobs, apart from those
/// of other programs. A search of the whole window for them took 42 ms.
macro_rules! with_divisor {
    ($statement:ident) => {
        $statement!(
            "CASE WHEN $1::text IS NULL OR EXISTS (SELECT FROM apalis.jobs WHERE job_type = $1 AND status = 'Pending')
                       OR EXISTS (SELECT FROM queue_minutes WHERE queue = $1) OR EXISTS (SELECT FROM queue_hours WHERE queue = $1)
                  THEN 1 ELSE 10 END"
        )
    };
}

/// Lists jobs among the newest ids before that of the page, newest first: [`WINDOW`] ids, or a tenth of them for a queue of
/// which nothing is known. It stops when the page is full.
pub(crate) async fn newest(pool: &Pool, page: &Page<'_>) -> Result<Vec<JobRow>> {
    macro_rules! read {
        ($divisor:tt) => {
            page!(
                ["(SELECT * FROM apalis.jobs WHERE id < $2 ORDER BY id DESC LIMIT $10::int8 / "
                    + $divisor
                    + ") AS job
                  WHERE ($9::text IS NULL OR status = $9) AND"],
                [""],
                page,
                pool,
                page.status,
                WINDOW
            )
        };
    }
    with_divisor!(read)
}

/// The end of what [`newest`] reads.
pub(crate) struct WindowEnd {
    /// The oldest id that it reads.
    pub id: String,
    /// The number of ids that it reads.
    pub searched: i64,
}

/// Returns the end of what [`newest`] reads for this page; `None` if there are no older ids.
pub(crate) async fn window_end(pool: &Pool, page: &Page<'_>) -> Result<Option<WindowEnd>> {
    macro_rules! read {
        ($divisor:tt) => {
            sqlx::query_as!(
                WindowEnd,
                r#"WITH searched AS MATERIALIZED (SELECT $3::int8 / "#
                    + $divisor
                    + r#" AS jobs)
                   SELECT job.id AS "id!", searched.jobs AS "searched!"
                   FROM searched CROSS JOIN LATERAL (
                       SELECT id FROM apalis.jobs WHERE id < $2 ORDER BY id DESC OFFSET searched.jobs - 1 LIMIT 1
                   ) AS job"#,
                page.queue,
                page.before,
                WINDOW,
            )
        };
    }
    with_divisor!(read).fetch_optional(repeatable(pool)).await
}

/// Lists these jobs, oldest first.
pub(crate) async fn by_ids(pool: &Pool, ids: &[String]) -> Result<Vec<JobRow>> {
    select!(query_as!(JobRow), [], [" FROM apalis.jobs WHERE id = ANY($1) ORDER BY id"], ids)
        .fetch_all(repeatable(pool))
        .await
}

/// Lists running jobs before the id of the page, newest first. There are always few of them.
pub(crate) async fn running(pool: &Pool, page: &Page<'_>) -> Result<Vec<JobRow>> {
    page!(
        ["(SELECT * FROM apalis.jobs WHERE status = 'Running' ORDER BY lock_by LIMIT $9) AS job WHERE"],
        [""],
        page,
        pool,
        WINDOW
    )
}

/// Lists the running jobs of one worker, oldest run first.
pub(crate) async fn held_by(pool: &Pool, worker: &str, limit: i64) -> Result<Vec<JobRow>> {
    let page = Page { before: END, limit, ..Page::default() };
    page!(
        [
            "(SELECT * FROM apalis.jobs WHERE status = 'Running' AND lock_by = $9 ORDER BY lock_at LIMIT $4) AS job WHERE"
        ],
        [""],
        page,
        pool,
        worker
    )
}

/// Lists the waiting and running jobs with the key of the page: at most one of each queue.
pub(crate) async fn live_with_key(pool: &Pool, page: &Page<'_>) -> Result<Vec<JobRow>> {
    page!(
        ["(WITH RECURSIVE kind AS (
               (SELECT job_type FROM apalis.jobs WHERE idempotency_key IS NOT NULL AND status IN ('Pending', 'Running')
                ORDER BY job_type LIMIT 1)
               UNION ALL
               SELECT (SELECT job_type FROM apalis.jobs
                       WHERE idempotency_key IS NOT NULL AND status IN ('Pending', 'Running') AND job_type > kind.job_type
                       ORDER BY job_type LIMIT 1)
               FROM kind WHERE kind.job_type IS NOT NULL
           )
           SELECT job.* FROM kind CROSS JOIN LATERAL (
               SELECT * FROM apalis.jobs
               WHERE job_type = kind.job_type AND idempotency_key = $8 AND idempotency_key IS NOT NULL
                 AND status IN ('Pending', 'Running')) AS job) AS job
          WHERE"],
        [""],
        page,
        pool
    )
}

/// Lists waiting jobs before the id of the page, newest first, and with `running` also running ones. Of each queue it
/// reads the first [`SOONEST`] waiting jobs by priority, from the lowest, and then by due time.
pub(crate) async fn waiting(pool: &Pool, page: &Page<'_>, running: bool) -> Result<Vec<JobRow>> {
    page!(
        ["(WITH RECURSIVE kind AS (
               (SELECT job_type FROM apalis.jobs WHERE status = 'Pending' AND $1::text IS NULL ORDER BY job_type LIMIT 1)
               UNION ALL
               SELECT (SELECT job_type FROM apalis.jobs WHERE status = 'Pending' AND job_type > kind.job_type
                       ORDER BY job_type LIMIT 1)
               FROM kind WHERE kind.job_type IS NOT NULL
           )
           SELECT soonest.* FROM (SELECT job_type FROM kind UNION ALL SELECT $1) AS kind CROSS JOIN LATERAL (
               SELECT * FROM apalis.jobs WHERE status = 'Pending' AND job_type = kind.job_type
               ORDER BY priority, run_at LIMIT $9) AS soonest
           UNION ALL
           SELECT * FROM (SELECT * FROM apalis.jobs WHERE status = 'Running' AND $10 ORDER BY lock_by LIMIT $11) AS held) AS job
          WHERE"],
        [""],
        page,
        pool,
        SOONEST,
        running,
        WINDOW
    )
}

/// Lists jobs of a state that has an index by queue and id, before the id of the page, newest first. `$also` is a condition
/// on a further column of the index.
macro_rules! by_queue {
    ($status:tt, $also:tt, $page:expr, $pool:expr) => {
        page!(
            ["(WITH RECURSIVE kind AS (
                   (SELECT job_type FROM apalis.jobs WHERE status = '"
                + $status
                + "' AND $1::text IS NULL
                    ORDER BY job_type LIMIT 1)
                   UNION ALL
                   SELECT (SELECT job_type FROM apalis.jobs WHERE status = '"
                + $status
                + "' AND job_type > kind.job_type
                           ORDER BY job_type LIMIT 1)
                   FROM kind WHERE kind.job_type IS NOT NULL
               )
               SELECT latest.* FROM (SELECT job_type FROM kind UNION ALL SELECT $1) AS kind CROSS JOIN LATERAL (
                   SELECT * FROM apalis.jobs WHERE status = '"
                + $status
                + "' AND job_type = kind.job_type AND "
                + $also],
            ["ORDER BY id DESC LIMIT $4) AS latest) AS job"],
            $page,
            $pool
        )
    };
}

/// Lists dead letters.
pub(crate) async fn dead(pool: &Pool, page: &Page<'_>) -> Result<Vec<JobRow>> {
    by_queue!("Killed", "", page, pool)
}

/// Lists the dead letters of the page's group of errors, from the index of the groups.
pub(crate) async fn dead_of_group(pool: &Pool, page: &Page<'_>) -> Result<Vec<JobRow>> {
    by_queue!("Killed", "coalesce(error_group, '') = $5 AND ", page, pool)
}

/// Lists cancelled jobs.
pub(crate) async fn cancelled(pool: &Pool, page: &Page<'_>) -> Result<Vec<JobRow>> {
    by_queue!("Cancelled", "", page, pool)
}

/// The details of one job that a list does not show.
pub(crate) struct Details {
    pub payload: Vec<u8>,
    pub errors: Option<JsonValue>,
    pub events: Option<JsonValue>,
    /// The newest 20 actions of operators that cancelled or replayed this job by its id, newest first.
    pub acts: Option<JsonValue>,
    /// How often operators have replayed it.
    pub replays: i32,
    /// The result of its last run if that is not done; `{"Snoozed": reason}` after a snooze.
    pub last_result: Option<JsonValue>,
    pub paused_because: Option<String>,
    /// Live workers that run its queue.
    pub workers: i64,
    /// Those workers whose claims of this queue fail.
    pub failing: i64,
    /// The error of one of them.
    pub claim_error: Option<String>,
    /// Whether the worker that holds it is live.
    pub held: bool,
    pub cancelling: bool,
}

/// Reads all details of one job. A worker is live if its last heartbeat is less than its lease before or after now.
/// After a step of the database's clock this may be wrong for one heartbeat.
pub(crate) async fn show(pool: &Pool, id: &str) -> Result<Option<(JobRow, Details)>> {
    let row = select!(
        query!(),
        ["WITH live AS MATERIALIZED (
               SELECT id, string_to_array(layers, ',') AS queues, claim_errors FROM apalis.workers
               WHERE abs(extract(epoch FROM last_seen) - extract(epoch FROM now())) < extract(epoch FROM lease)
           )
           "],
        [r#",
                  job AS payload, errors, events, last_result, coalesce(replays, 0) AS "replays!",
                  (SELECT jsonb_agg(act)
                   FROM (SELECT at, actor, action, reason FROM operator_actions
                         WHERE target = $1 AND action IN ('cancel', 'replay') ORDER BY operator_actions.id DESC LIMIT 20) AS act)
                      AS acts,
                  (SELECT reason FROM paused_queues WHERE name = job_type) AS paused_because,
                  (SELECT count(*) FROM live WHERE job_type = ANY(queues)) AS "workers!",
                  (SELECT count(*) FROM live WHERE claim_errors ? job_type AND job_type = ANY(queues)) AS "failing!",
                  (SELECT max(claim_errors -> job_type ->> 'error') FROM live WHERE job_type = ANY(queues)) AS claim_error,
                  EXISTS (SELECT FROM live WHERE live.id = lock_by) AS "held!",
                  EXISTS (SELECT FROM cancellations WHERE job_id = jobs.id) AS "cancelling!"
           FROM apalis.jobs WHERE id = $1"#],
        id
    );
    let Some(row) = row.fetch_optional(repeatable(pool)).await? else { return Ok(None) };
    let job = JobRow {
        id: row.id,
        queue: row.queue,
        status: row.status,
        priority: row.priority,
        claims: row.claims,
        failures: row.failures,
        crashes: row.crashes,
        due_at: row.due_at,
        now: row.now,
        worker: row.worker,
        started_at: row.started_at,
        ended_at: row.ended_at,
        last_error: row.last_error,
        error_group: row.error_group,
        key: row.key,
        correlation_id: row.correlation_id,
        traceparent: row.traceparent,
    };
    let details = Details {
        payload: row.payload,
        errors: row.errors,
        events: row.events,
        acts: row.acts,
        replays: row.replays,
        last_result: row.last_result,
        paused_because: row.paused_because,
        workers: row.workers,
        failing: row.failing,
        claim_error: row.claim_error,
        held: row.held,
        cancelling: row.cancelling,
    };
    Ok(Some((job, details)))
}
