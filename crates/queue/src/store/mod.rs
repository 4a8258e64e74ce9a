//! The SQL of the queue's tables: one function for each operation.

pub(crate) mod claim;
pub(crate) mod depths;
pub(crate) mod due;
pub(crate) mod gauges;
pub(crate) mod hours;
pub(crate) mod leases;
pub(crate) mod list;
pub(crate) mod lookup;
pub(crate) mod minutes;
pub(crate) mod operator;
pub(crate) mod results;

use std::time::Duration;

use sqlx::types::time::OffsetDateTime;
use sqlx::{PgExecutor, Result};

use super::{
    CHANNEL,
    fair_key::FairKey,
    new_job::{Due, NewJob},
    storable::{StorableText, storable_key, storable_time, wait_seconds},
};
use runtime::{
    db::Pool,
    executor::{Transaction, repeatable},
};

/// New jobs, column by column.
#[derive(Default)]
struct NewRows {
    ids: Vec<String>,
    queues: Vec<String>,
    payloads: Vec<Vec<u8>>,
    priorities: Vec<i32>,
    times: Vec<Option<OffsetDateTime>>,
    delays: Vec<f64>,
    correlation_ids: Vec<Option<String>>,
    traceparents: Vec<Option<String>>,
    keys: Vec<Option<String>>,
    fair_keys: Vec<Option<i64>>,
}

impl NewRows {
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
            new.fair_keys.push(job.fair_key.map(FairKey::number));
        }
        new
    }
}

/// A query with the INSERT of jobs, from a source with the columns `id, queue, payload, priority, at, delay, correlation_id,
/// traceparent, key, fair_key`. `$before` and `$after` are the text before and after it: a record and its jobs are one statement if
/// it stands in a WITH clause. Such jobs are then counted and announced by [`Queue::enqueued`](crate::Queue::enqueued).
///
/// A key of the metadata without a value is left out: that saves 19 bytes for a job with only a correlation id, and 50,000 rows
/// take 15 ms instead of 24.
///
/// `greatest` ignores the missing time of a job with a delay. A time in the past becomes the start of the transaction:
/// an earlier one would be below the low-water marks of claims, where only a sweep finds the job.
#[macro_export]
macro_rules! query_with_jobs {
    ($before:tt, $source:tt, $after:tt, $($argument:expr),* $(,)?) => {
        sqlx::query!(
            $before
                + r#"INSERT INTO apalis.jobs (id, job_type, job, priority, run_at, metadata, idempotency_key, fair_key)
           SELECT id, queue, payload, priority, greatest(at, now() + make_interval(secs => delay)),
                  CASE WHEN correlation_id IS NOT NULL AND traceparent IS NOT NULL
                       THEN hstore(ARRAY['correlation_id', 'traceparent'], ARRAY[correlation_id, traceparent])
                       WHEN correlation_id IS NOT NULL THEN hstore('correlation_id', correlation_id)
                       WHEN traceparent IS NOT NULL THEN hstore('traceparent', traceparent) END, key, fair_key
           FROM "#
                + $source
                + $after,
            $($argument),*
        )
    };
}

/// The INSERT of new rows, with a clause for jobs whose key is taken.
macro_rules! insert {
    ($new:expr, $taken:tt) => {
        $crate::query_with_jobs!(
            "",
            "unnest($1::text[], $2::text[], $3::bytea[], $4::int4[], $5::timestamptz[], $6::float8[], $7::text[],
                    $8::text[], $9::text[], $10::int8[])
             AS new (id, queue, payload, priority, at, delay, correlation_id, traceparent, key, fair_key)",
            $taken,
            &$new.ids,
            &$new.queues,
            &$new.payloads,
            &$new.priorities,
            &$new.times as &[Option<OffsetDateTime>],
            &$new.delays,
            &$new.correlation_ids as &[Option<String>],
            &$new.traceparents as &[Option<String>],
            &$new.keys as &[Option<String>],
            &$new.fair_keys as &[Option<i64>],
        )
    };
}

/// Inserts jobs. apalis' own `push_tasks` uses the client's clock and cuts it to whole seconds.
pub(crate) async fn insert(tx: &mut Transaction, jobs: &[&NewJob]) -> Result<()> {
    let new = NewRows::of(jobs);
    insert!(new, "").execute(&mut *tx).await?;
    Ok(())
}

/// Inserts the jobs whose key is free, and returns their ids. It waits for an open transaction that is taking the same
/// key, so all transactions must take their keys in the same order. It is separate from `insert`, because the
/// conflict check would slow down jobs without a key.
pub(crate) async fn insert_unique(tx: &mut Transaction, jobs: &[&NewJob]) -> Result<Vec<String>> {
    let new = NewRows::of(jobs);
    let inserted = insert!(
        new,
        " ON CONFLICT (job_type, idempotency_key)
              WHERE idempotency_key IS NOT NULL AND status IN ('Pending', 'Running') DO NOTHING
           RETURNING id"
    );
    Ok(inserted.fetch_all(&mut *tx).await?.into_iter().map(|row| row.id).collect())
}

/// Notifies all listening workers that these queues have new jobs. A notification need not survive a crash of the
/// database. So its transaction does not wait for the disk, during which no other one with a notification could commit.
pub(crate) async fn announce(executor: impl PgExecutor<'_>, queues: &[String]) -> Result<()> {
    sqlx::query!(
        "SELECT pg_notify($1, queue) FROM unnest($2::text[]) AS queue, set_config('synchronous_commit', 'off', true)",
        CHANNEL,
        queues,
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// A run that the database has in a worker's name and that the worker does not know.
#[derive(Debug)]
pub(crate) struct LostClaim {
    pub queue: String,
    pub id: String,
    pub token: i32,
}

/// Returns the runs of these queues that the database has in a worker's name, except those that the worker knows.
pub(crate) async fn find_lost_claims(
    pool: &Pool,
    worker: &str,
    queues: &[&str],
    known: &[String],
    tokens: &[i32],
) -> Result<Vec<LostClaim>> {
    sqlx::query_as!(
        LostClaim,
        "SELECT job_type AS queue, id, attempts AS token FROM apalis.jobs
         WHERE lock_by = $1 AND status = 'Running' AND job_type = ANY($2)
           AND (id, attempts) NOT IN (SELECT known.id, known.token
                                      FROM unnest($3::text[], $4::int4[]) AS known (id, token))",
        worker,
        queues as &[&str],
        known,
        tokens,
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Makes the jobs of lost claims Pending again, each under the token of its run. Jobs that another session has locked are
/// skipped. Returns the number of jobs. They are due at once, even if the database's clock has gone back.
///
/// The server may execute this statement late, after its session has died for the worker. By then the same worker may run
/// one of these jobs again. The token protects that run.
pub(crate) async fn give_back_lost_claims(pool: &Pool, worker: &str, ids: &[String], tokens: &[i32]) -> Result<u64> {
    let done = sqlx::query!(
        "UPDATE apalis.jobs SET status = 'Pending', run_at = least(run_at, now())
         WHERE id = ANY(ARRAY(
             SELECT held.id
             FROM unnest($2::text[], $3::int4[]) AS lost (id, token)
             JOIN apalis.jobs AS held ON held.id = lost.id AND held.attempts = lost.token
             WHERE held.lock_by = $1 AND held.status = 'Running'
             FOR UPDATE OF held SKIP LOCKED))",
        worker,
        ids,
        tokens,
    )
    .execute(repeatable(pool))
    .await?;
    Ok(done.rows_affected())
}

/// Returns the first id after `after` and before `before`.
pub(crate) async fn next_id(pool: &Pool, after: &str, before: &str) -> Result<Option<String>> {
    sqlx::query_scalar!("SELECT id FROM apalis.jobs WHERE id > $1 AND id < $2 ORDER BY id LIMIT 1", after, before)
        .fetch_optional(repeatable(pool))
        .await
}

/// The result of one batch of the cleaner.
#[derive(Debug)]
pub(crate) struct Step {
    /// The last id of the batch, after which the next one begins.
    pub upto: String,
    pub forgotten: i64,
}

/// The key of the cleaner's advisory lock, held for one statement. Any number works.
const CLEANER_LOCK: i64 = 0x006d_696c_6c72_6163;

/// Deletes the expired jobs among the next `size + 1` ids after `after` and before `before`; `None` while another process
/// deletes. Jobs that another session has locked are skipped.
///
/// The jobs are locked first, and deleted by their `ctid`, as in [`claim::claim`].
///
/// It reads a range of the primary key and needs no other index: ids are ULIDs, so old jobs come first. A batch of
/// 2,000 took 3 ms when all were deleted, and 1 to 4 ms when none was; one of 10,000 took 15 ms. 1,000,000 finished
/// jobs were deleted in 14 s, mostly pauses, and no job started more than 57 ms late meanwhile. 1,000,000 jobs that
/// wait for a later time cost each pass about 1 s of reading.
pub(crate) async fn delete_expired(
    pool: &Pool,
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
               WHERE ctid = ANY(ARRAY(
                   SELECT ctid FROM apalis.jobs
                   WHERE id > $1 AND id <= (SELECT upto FROM step)
                     AND (status || '' = 'Done' AND done_at < now() - make_interval(secs => $5)
                          OR status || '' IN ('Killed', 'Cancelled') AND done_at < now() - make_interval(secs => $6))
                   FOR UPDATE SKIP LOCKED))
               RETURNING id)
           SELECT upto AS "upto!", (SELECT count(*) FROM forgotten) AS "forgotten!" FROM step"#,
        after,
        before,
        size,
        CLEANER_LOCK,
        done.as_secs_f64(),
        dead.as_secs_f64(),
    )
    .fetch_optional(repeatable(pool))
    .await
}
