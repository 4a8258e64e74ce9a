//! Every SQL statement on the queue's tables: one operation, one statement, one place.

pub mod gauges;
pub mod leases;
pub mod list;
pub mod lookup;
pub mod operator;
pub mod results;

use std::time::Duration;

use sqlx::types::time::OffsetDateTime;
use sqlx::{PgConnection, PgExecutor, PgPool, Result};

use super::{
    CHANNEL,
    enqueue::{Due, NewJob},
    storable::{StorableText, storable_key, storable_time, wait_seconds},
};
use runtime::pooler::{in_transaction, once, repeatable};

/// New jobs, column by column.
#[derive(Default)]
struct New {
    ids: Vec<String>,
    queues: Vec<String>,
    payloads: Vec<Vec<u8>>,
    priorities: Vec<i32>,
    times: Vec<Option<OffsetDateTime>>,
    delays: Vec<f64>,
    correlation_ids: Vec<Option<String>>,
    traceparents: Vec<Option<String>>,
    keys: Vec<Option<String>>,
}

impl New {
    fn of(jobs: &[&NewJob]) -> Self {
        let mut new = Self::default();
        for job in jobs {
            let (time, delay) = match job.due {
                Due::At(time) => (Some(storable_time(time)), 0.0),
                Due::After(delay) => (None, wait_seconds(delay)),
            };
            new.ids.push(job.id.to_string());
            new.queues.push(job.queue.to_owned());
            new.payloads.push(job.payload.clone());
            new.priorities.push(job.priority.level());
            new.times.push(time);
            new.delays.push(delay);
            let text = |text: &String| StorableText::from(&**text).to_string();
            new.correlation_ids.push(job.origin.correlation_id.as_ref().map(text));
            new.traceparents.push(job.origin.traceparent.as_ref().map(text));
            new.keys.push(job.key.as_deref().map(storable_key));
        }
        new
    }
}

/// The one INSERT, with what is to be done about jobs whose key is taken. Metadata have no key without a value: that is
/// 19 bytes less for a job with a correlation id alone, and of 50,000 they are made in 15 ms instead of 24.
macro_rules! insert {
    ($new:expr, $taken:tt) => {
        sqlx::query!(
            r#"INSERT INTO apalis.jobs (id, job_type, job, priority, run_at, metadata, idempotency_key)
           SELECT id, queue, payload, priority, coalesce(at, now() + make_interval(secs => delay)),
                  CASE WHEN correlation_id IS NOT NULL AND traceparent IS NOT NULL
                       THEN hstore(ARRAY['correlation_id', 'traceparent'], ARRAY[correlation_id, traceparent])
                       WHEN correlation_id IS NOT NULL THEN hstore('correlation_id', correlation_id)
                       WHEN traceparent IS NOT NULL THEN hstore('traceparent', traceparent) END, key
           FROM unnest($1::text[], $2::text[], $3::bytea[], $4::int4[], $5::timestamptz[], $6::float8[], $7::text[],
                       $8::text[], $9::text[])
                AS new (id, queue, payload, priority, at, delay, correlation_id, traceparent, key)"#
                + $taken,
            &$new.ids,
            &$new.queues,
            &$new.payloads,
            &$new.priorities,
            &$new.times as &[Option<OffsetDateTime>],
            &$new.delays,
            &$new.correlation_ids as &[Option<String>],
            &$new.traceparents as &[Option<String>],
            &$new.keys as &[Option<String>],
        )
    };
}

/// Inserts jobs. apalis' own `push_tasks` takes the client's clock and cuts it to whole seconds.
pub async fn insert(connection: &mut PgConnection, jobs: &[&NewJob]) -> Result<()> {
    let new = New::of(jobs);
    insert!(new, "").execute(in_transaction(connection)).await?;
    Ok(())
}

/// Inserts those jobs whose key is free, and answers their ids. A key that an open transaction is about to take is
/// waited for, so all transactions must take theirs in one order. A statement of its own: with its second look at each
/// row, jobs without a key would pay for those that have one.
pub async fn insert_unique(connection: &mut PgConnection, jobs: &[&NewJob]) -> Result<Vec<String>> {
    let new = New::of(jobs);
    let inserted = insert!(
        new,
        " ON CONFLICT (job_type, idempotency_key)
              WHERE idempotency_key IS NOT NULL AND status IN ('Pending', 'Running') DO NOTHING
           RETURNING id"
    );
    Ok(inserted.fetch_all(in_transaction(connection)).await?.into_iter().map(|row| row.id).collect())
}

/// Tells every listening worker that these queues have new jobs.
pub async fn announce(executor: impl PgExecutor<'_>, queues: &[String]) -> Result<()> {
    sqlx::query!("SELECT pg_notify($1, queue) FROM unnest($2::text[]) AS queue", CHANNEL, queues)
        .execute(executor)
        .await?;
    Ok(())
}

/// A job taken by this worker for one run.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub id: String,
    pub payload: Vec<u8>,
    /// Counts claims; the fence.
    pub token: i32,
    pub failures: i32,
    /// Earlier runs during which the worker died.
    pub crashes: i32,
    /// Seconds from its due time to its claim, both by the database's clock; at most 30 days.
    pub waited: f64,
    pub correlation_id: Option<String>,
    pub traceparent: Option<String>,
}

/// Takes up to `limit` due jobs of a queue, highest priority first, then by due time; none while the queue is paused,
/// which is asked once a claim.
///
/// The lease is no condition here: the worker judges it by its own monotonic clock before it claims, and `last_seen` is
/// of the database's clock, which may step. What a worker claims after it was seen silent is taken back by the next
/// rescue, until it renews its lease.
///
/// A row that another program wrote must not fail the claim of all others: a token that cannot grow begins again at 1,
/// and a due time is bounded before it is subtracted.
///
/// The three priorities are walked one by one so that each walk is a range of `jobs_ready` in its own order: one
/// ordered scan over all of them would read every job that is not yet due before it finds that none is.
/// The rows are updated by their `ctid`: they are locked by this very statement, so it holds, and 500 look-ups in the
/// primary key are spared (11.0 -> 8.6 us a job). One that another transaction changed a moment before is not seen by
/// this statement and stays for the next.
pub async fn claim(pool: &PgPool, worker: &str, queue: &str, limit: i64) -> Result<Vec<Claimed>> {
    sqlx::query_as!(
        Claimed,
        r#"UPDATE apalis.jobs AS job
           SET status = 'Running', lock_by = $1, lock_at = now(),
               attempts = CASE attempts WHEN 2147483647 THEN 1 ELSE attempts + 1 END
           WHERE ctid = ANY(ARRAY(
               SELECT ready.ctid
               FROM (VALUES (1), (0), (-1)) AS level (priority)
               CROSS JOIN LATERAL (
                   SELECT ctid FROM apalis.jobs
                   WHERE job_type = $2 AND status = 'Pending' AND priority = level.priority AND run_at <= now()
                   ORDER BY run_at LIMIT $3 FOR UPDATE SKIP LOCKED
               ) AS ready
               WHERE NOT EXISTS (SELECT FROM queues WHERE name = $2 AND paused_at IS NOT NULL)
               LIMIT $3))
           RETURNING job.id, job.job AS payload, job.attempts AS token, job.failures, job.crashes,
                     extract(epoch FROM clock_timestamp()
                             - greatest(job.run_at, clock_timestamp() - interval '30 days'))::float8 AS "waited!",
                     job.metadata -> 'correlation_id' AS correlation_id,
                     job.metadata -> 'traceparent' AS traceparent"#,
        worker,
        queue,
        limit,
    )
    .fetch_all(once(pool))
    .await
}

/// When a queue wants attention.
#[derive(Debug)]
pub struct DueCheck {
    pub queue: String,
    /// It has a job that is due.
    pub is_due: bool,
    /// Seconds until the first one that is not due yet.
    pub next: Option<f64>,
}

/// Looks at these queues: what is due, and when the next job will be, a day from now at most. Both are the ends of a
/// range in `jobs_ready`.
pub async fn look(pool: &PgPool, queues: &[String]) -> Result<Vec<DueCheck>> {
    sqlx::query_as!(
        DueCheck,
        r#"SELECT queue AS "queue!", bool_or(due.is_due) AS "is_due!",
                  extract(epoch FROM min(least(later.run_at, now() + interval '1 day')) - now())::float8 AS next
           FROM unnest($1::text[]) AS queue
           CROSS JOIN (VALUES (1), (0), (-1)) AS level (priority)
           CROSS JOIN LATERAL (
               SELECT EXISTS (SELECT FROM apalis.jobs WHERE job_type = queue AND status = 'Pending'
                              AND priority = level.priority AND run_at <= now()) AS is_due
           ) AS due
           LEFT JOIN LATERAL (
               SELECT run_at FROM apalis.jobs
               WHERE job_type = queue AND status = 'Pending' AND priority = level.priority AND run_at > now()
               ORDER BY run_at LIMIT 1
           ) AS later ON true
           WHERE queue NOT IN (SELECT name FROM queues WHERE paused_at IS NOT NULL)
           GROUP BY queue"#,
        queues,
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Gives back running jobs of a worker's queue that it does not hold, but for those that another session has locked;
/// returns how many. Their due time has come, whatever the clock of the database has done since.
pub async fn give_back_unheld(pool: &PgPool, worker: &str, queue: &str, held: &[String]) -> Result<u64> {
    let done = sqlx::query!(
        "UPDATE apalis.jobs SET status = 'Pending', run_at = least(run_at, now())
         WHERE id = ANY(ARRAY(
             SELECT id FROM apalis.jobs
             WHERE lock_by = $1 AND status = 'Running' AND job_type = $2 AND id <> ALL($3)
             FOR UPDATE SKIP LOCKED))",
        worker,
        queue,
        held,
    )
    .execute(repeatable(pool))
    .await?;
    Ok(done.rows_affected())
}

/// One step of forgetting: of the next `size` jobs after the id `after` and before `before`, those that ended so long ago.
#[derive(Debug)]
pub struct Step {
    /// Where the next step begins.
    pub upto: String,
    pub forgotten: i64,
}

/// Any number: the lock of whoever forgets, for the length of one statement.
const FORGETTING: i64 = 0x006d_696c_6c72_6163;

/// Takes one such step; `None` while another process takes one.
///
/// A range of the primary key and no index of its own: ids are ULIDs, so what is old comes first. A step over 2,000 took
/// 3 ms when all of them went and 1 to 4 when all of them stayed; one over 10,000 took 15. So 1,000,000 finished jobs went
/// in 14 s, most of it pauses, with no job beside it begun later than after 57 ms; a million that waits for its time
/// costs each pass about a second of reading.
pub async fn delete_expired(
    pool: &PgPool,
    after: &str,
    before: &str,
    size: i64,
    done: Duration,
    dead: Duration,
) -> Result<Option<Step>> {
    sqlx::query_as!(
        Step,
        r#"WITH step AS MATERIALIZED (
               SELECT coalesce((SELECT id FROM apalis.jobs WHERE id > $1 AND id < $2 ORDER BY id OFFSET $3 LIMIT 1), $2)
                      AS upto
               WHERE pg_try_advisory_xact_lock($4)),
           forgotten AS (
               DELETE FROM apalis.jobs
               WHERE id > $1 AND id <= (SELECT upto FROM step)
                 AND (status || '' = 'Done' AND done_at < now() - make_interval(secs => $5)
                      OR status || '' IN ('Killed', 'Cancelled') AND done_at < now() - make_interval(secs => $6))
               RETURNING id)
           SELECT upto AS "upto!", (SELECT count(*) FROM forgotten) AS "forgotten!" FROM step"#,
        after,
        before,
        size,
        FORGETTING,
        done.as_secs_f64(),
        dead.as_secs_f64(),
    )
    .fetch_optional(repeatable(pool))
    .await
}
