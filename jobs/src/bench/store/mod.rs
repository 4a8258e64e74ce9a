//! SQL of the benchmark.

pub mod items;
pub mod operators;
pub mod prices;

use sqlx::PgConnection;
use ulid::Ulid;
use uuid::Uuid;

use super::Bench;
use runtime::{error::Error, executor::repeatable};

/// The queue of the jobs that [`insert`] adds. They are due long after any benchmark, and no worker runs them.
const QUEUE: &str = "bench_inserts";

/// Inserts `count` transactions and a job for each in one database transaction, as the ingest does.
pub(super) async fn insert(session: &mut PgConnection, count: usize) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    let mut tx = sqlx::Connection::begin(session).await?;
    sqlx::query!(
        "INSERT INTO transactions (id, transaction_id, source_account, destination_account, amount, currency,
                                   created_at, due_at)
         SELECT id, id::text, 'acc_user_1', 'acc_merchant_1', 1500, 'INR', now(), now() + interval '1 hour'
         FROM unnest($1::uuid[]) AS id",
        &ids,
    )
    .execute(&mut *tx)
    .await?;
    let payloads: Vec<Vec<u8>> = ids.iter().map(|id| format!(r#"{{"id":"{id}"}}"#).into_bytes()).collect();
    let jobs: Vec<String> = ids.into_iter().map(|id| Ulid::from(id.as_u128()).to_string()).collect();
    sqlx::query!(
        "INSERT INTO apalis.jobs (id, job_type, job, priority, run_at)
         SELECT id, $3, payload, 0, now() + interval '1 hour'
         FROM unnest($1::text[], $2::bytea[]) AS new (id, payload)",
        &jobs,
        &payloads,
        QUEUE,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// Claims due jobs with `SKIP LOCKED` only, so that two sessions claim different jobs.
pub(super) async fn claim_bare(session: &mut PgConnection, queue: &str, limit: i64) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "UPDATE apalis.jobs SET status = 'Running', lock_by = 'bench', lock_at = now(), attempts = attempts + 1
         WHERE id = ANY(ARRAY(
             SELECT id FROM apalis.jobs
             WHERE job_type = $1 AND status = 'Pending' AND priority = 0 AND run_at <= now()
             ORDER BY run_at LIMIT $2 FOR UPDATE SKIP LOCKED))
         RETURNING id",
        queue,
        limit,
    )
    .fetch_all(session)
    .await
}

/// Marks jobs as done by their ids, without a fencing check.
pub(super) async fn finish_bare(session: &mut PgConnection, ids: &[String]) -> sqlx::Result<()> {
    sqlx::query!("UPDATE apalis.jobs SET status = 'Done', done_at = now() WHERE id = ANY($1)", ids)
        .execute(session)
        .await?;
    Ok(())
}

/// Empties all tables that a benchmark fills. Until the next ANALYZE the planner knows no number of rows, as in a new
/// database.
pub async fn empty(bench: &Bench) -> Result<(), Error> {
    sqlx::query!(
        "TRUNCATE apalis.jobs, transactions, webhook_conflicts, webhook_conflict_totals, webhook_replays, callbacks,
                  callback_destinations, items, users, item_documents, prices"
    )
    .execute(repeatable(&bench.pool))
    .await?;
    Ok(())
}

/// Empties the tables, updates statistics and writes all changes to disk, so that every measurement starts from the same
/// state.
pub async fn clear(bench: &Bench) -> Result<(), Error> {
    empty(bench).await?;
    analyze_and_checkpoint(bench).await
}

impl Bench {
    /// Opens a session without a statement time-out, for long statements.
    async fn unlimited_session(&self) -> Result<PgConnection, Error> {
        let mut session = self.session().await?;
        sqlx::query!("SET statement_timeout = 0").execute(&mut session).await?;
        Ok(session)
    }
}

/// Updates statistics and writes a checkpoint, so that its writes do not distort the next measurement.
pub async fn analyze_and_checkpoint(bench: &Bench) -> Result<(), Error> {
    let mut session = bench.unlimited_session().await?;
    sqlx::query!("VACUUM (ANALYZE) apalis.jobs").execute(&mut session).await?;
    sqlx::query!("VACUUM (ANALYZE) transactions").execute(&mut session).await?;
    sqlx::query!("CHECKPOINT").execute(&mut session).await?;
    Ok(())
}

/// Adds jobs that are due now, one microsecond apart, as from concurrent senders. Here and below ids are ordered by time,
/// like the ids of the queue: 12 hexadecimal digits of milliseconds, then random digits.
pub async fn add_due(bench: &Bench, queue: &str, count: i64) -> Result<(), Error> {
    let mut session = bench.unlimited_session().await?;
    sqlx::query!(
        "INSERT INTO apalis.jobs (id, job_type, job, priority, run_at)
         SELECT upper(lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::int8), 12, '0')
                      || substr(replace(gen_random_uuid()::text, '-', ''), 1, 14)),
                $1, convert_to('{}', 'UTF8'), 0, now() - (interval '1 microsecond' * ($2 - n))
         FROM generate_series(1, $2::bigint) AS n",
        queue,
        count,
    )
    .execute(&mut session)
    .await?;
    Ok(())
}

/// Adds settled transactions and their finished jobs: 1,000 per second, up to now.
pub async fn add_finished(bench: &Bench, queue: &str, count: i64) -> Result<(), Error> {
    let mut session = bench.unlimited_session().await?;
    sqlx::query!(
        "WITH new AS MATERIALIZED (
             SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || '7'
                     || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid AS id, at
             FROM (SELECT now() - interval '1 millisecond' * ($1 - n) AS at
                   FROM generate_series(1, $1::bigint) AS n) AS times
         ), recorded AS (
             INSERT INTO transactions (id, transaction_id, source_account, destination_account, amount, currency, status,
                                       created_at, due_at, processed_at)
             SELECT id, 'finished-' || id, 'acc_user_1', 'acc_merchant_1', 1500, 'INR', 'PROCESSED', at, at, at FROM new
         )
         INSERT INTO apalis.jobs (id, job_type, job, priority, run_at, status, attempts, lock_by, lock_at, done_at,
                                  last_result)
         SELECT upper(substr(replace(id::text, '-', ''), 1, 26)), $2, convert_to('{\"id\":\"' || id || '\"}', 'UTF8'), 0,
                at, 'Done', 1, 'gone', at, now(), '{\"Ok\": null}'
         FROM new",
        count,
        queue,
    )
    .execute(&mut session)
    .await?;
    Ok(())
}

/// Adds transactions that are due in a year and their jobs: 1,000 per second, up to now.
pub async fn add_scheduled(bench: &Bench, queue: &str, count: i64) -> Result<(), Error> {
    let mut session = bench.unlimited_session().await?;
    sqlx::query!(
        "WITH new AS MATERIALIZED (
             SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || '7'
                     || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid AS id, at
             FROM (SELECT now() - interval '1 millisecond' * ($1 - n) AS at
                   FROM generate_series(1, $1::bigint) AS n) AS times
         ), recorded AS (
             INSERT INTO transactions (id, transaction_id, source_account, destination_account, amount, currency,
                                       created_at, due_at)
             SELECT id, 'scheduled-' || id, 'acc_user_1', 'acc_merchant_1', 1500, 'INR', at, at + interval '1 year' FROM new
         )
         INSERT INTO apalis.jobs (id, job_type, job, priority, run_at)
         SELECT upper(substr(replace(id::text, '-', ''), 1, 26)), $2, convert_to('{\"id\":\"' || id || '\"}', 'UTF8'), 0,
                at + interval '1 year' FROM new",
        count,
        queue,
    )
    .execute(&mut session)
    .await?;
    Ok(())
}

/// The database's clock, in seconds since the Unix epoch.
pub async fn now(bench: &Bench) -> Result<f64, Error> {
    let now = sqlx::query_scalar!(r#"SELECT extract(epoch FROM clock_timestamp())::float8 AS "now!""#);
    Ok(now.fetch_one(repeatable(&bench.pool)).await?)
}

/// The date of the database's clock.
pub async fn today(bench: &Bench) -> Result<String, Error> {
    Ok(sqlx::query_scalar!(r#"SELECT current_date::text AS "today!""#).fetch_one(repeatable(&bench.pool)).await?)
}

/// The server's version, without the suffix of its package.
pub async fn version(bench: &Bench) -> Result<String, Error> {
    let version = sqlx::query_scalar!(
        r#"SELECT 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1) AS "version!""#
    );
    Ok(version.fetch_one(repeatable(&bench.pool)).await?)
}

/// Whether a due job waits or runs.
pub async fn has_due(bench: &Bench, queue: &str) -> Result<bool, Error> {
    let due = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM apalis.jobs WHERE job_type = $1 AND status = 'Pending' AND priority = 0
                          AND run_at <= now())
               OR EXISTS (SELECT FROM apalis.jobs WHERE job_type = $1 AND status = 'Running') AS "due!""#,
        queue,
    );
    Ok(due.fetch_one(repeatable(&bench.pool)).await?)
}

/// Seconds from `since` to the end of the last job of a queue that was created and claimed after `since`. Ids are ordered
/// by time, so it does not read the jobs before.
///
/// # Errors
/// When not exactly `count` jobs are done, or when a job took more than one run.
pub async fn drain_seconds(bench: &Bench, queue: &str, since: f64, count: i64) -> Result<f64, Error> {
    let drained = sqlx::query!(
        r#"SELECT count(*) AS "done!", count(*) FILTER (WHERE attempts = 1) AS "once!",
                  coalesce(extract(epoch FROM max(done_at))::float8 - $2, 0) AS "seconds!"
           FROM apalis.jobs
           WHERE job_type = $1 AND status = 'Done' AND lock_at >= to_timestamp($2)
             AND id >= upper(lpad(to_hex((($2 - 1) * 1000)::int8), 12, '0'))"#,
        queue,
        since,
    )
    .fetch_one(repeatable(&bench.pool))
    .await?;
    if (drained.done, drained.once) != (count, count) {
        let (done, once) = (drained.done, drained.once);
        return Err(Error::Internal(format!("{done} of {count} jobs are done, {once} of them in one run")));
    }
    Ok(drained.seconds)
}

/// Counts the transactions created after `since`, and how many of them have the job with their id.
pub async fn count_recorded(bench: &Bench, queue: &str, since: f64) -> Result<(i64, i64), Error> {
    let ids = sqlx::query_scalar!("SELECT id FROM transactions WHERE created_at >= to_timestamp($1)", since);
    let ids: Vec<Uuid> = ids.fetch_all(repeatable(&bench.pool)).await?;
    let jobs: Vec<String> = ids.iter().map(|id| Ulid::from(id.as_u128()).to_string()).collect();
    let found = sqlx::query_scalar!(
        r#"SELECT count(*) AS "found!" FROM unnest($2::text[]) AS wanted (id) JOIN apalis.jobs USING (id)
           WHERE job_type = $1"#,
        queue,
        &jobs,
    );
    Ok((i64::try_from(ids.len()).unwrap_or(i64::MAX), found.fetch_one(repeatable(&bench.pool)).await?))
}

/// How long after their due time transactions were settled, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Lateness {
    pub settled: i64,
    /// Settlements per second, from the first due time to the last settlement.
    pub rate: f64,
    pub p50: f64,
    pub p99: f64,
    pub most: f64,
}

/// Measures the settled transactions that were created after `since`.
pub async fn lateness(bench: &Bench, since: f64) -> Result<Lateness, Error> {
    Ok(sqlx::query_as!(
        Lateness,
        r#"SELECT count(*) AS "settled!", coalesce(count(*) / nullif(extract(epoch FROM max(processed_at) - min(due_at)), 0), 0)::float8 AS "rate!",
                  coalesce(percentile_disc(0.5) WITHIN GROUP (ORDER BY late), 0) AS "p50!",
                  coalesce(percentile_disc(0.99) WITHIN GROUP (ORDER BY late), 0) AS "p99!", coalesce(max(late), 0) AS "most!"
           FROM (SELECT due_at, processed_at, extract(epoch FROM processed_at - due_at)::float8 AS late FROM transactions
                 WHERE created_at >= to_timestamp($1) AND status = 'PROCESSED') AS settled"#,
        since,
    )
    .fetch_one(repeatable(&bench.pool))
    .await?)
}

/// Rows of jobs and transactions that sequential scans have read, as far as sessions have reported their statistics.
pub async fn scanned_rows(bench: &Bench) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(seq_tup_read), 0)::int8 AS "count!" FROM pg_stat_user_tables
           WHERE relname IN ('jobs', 'transactions')"#,
    );
    Ok(count.fetch_one(repeatable(&bench.pool)).await?)
}

/// Opens a session with a snapshot that PostgreSQL must keep until the session is dropped.
pub async fn hold_snapshot(bench: &Bench) -> Result<PgConnection, Error> {
    let mut session = bench.session().await?;
    let forget = "SET idle_in_transaction_session_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class";
    sqlx::raw_sql(forget).execute(&mut session).await?;
    Ok(session)
}

/// Makes each inserted transaction take half a millisecond, as on a slow disk, until [`lift_limit`].
pub async fn limit_inserts(bench: &Bench) -> Result<(), Error> {
    const LIMIT: &str = "
        CREATE FUNCTION bench_limit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_sleep((SELECT count(*) FROM added)::float8 * 0.0005);
            RETURN NULL;
        END $$;
        CREATE TRIGGER bench_limit AFTER INSERT ON transactions REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION bench_limit()";
    sqlx::raw_sql(LIMIT).execute(&mut bench.session().await?).await?;
    Ok(())
}

/// Ends [`limit_inserts`].
pub async fn lift_limit(bench: &Bench) -> Result<(), Error> {
    const LIFT: &str = "DROP TRIGGER bench_limit ON transactions; DROP FUNCTION bench_limit()";
    sqlx::raw_sql(LIFT).execute(&mut bench.session().await?).await?;
    Ok(())
}

/// How long after they were enqueued jobs were claimed, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct ClaimLatency {
    pub claimed: i64,
    pub p50: f64,
    pub p99: f64,
}

/// Measures the finished jobs of a queue that were enqueued after `since`, due at once. Both times are those of the
/// database.
pub async fn claim_latency(bench: &Bench, queue: &str, since: f64) -> Result<ClaimLatency, Error> {
    Ok(sqlx::query_as!(
        ClaimLatency,
        r#"SELECT count(*) AS "claimed!", coalesce(percentile_disc(0.5) WITHIN GROUP (ORDER BY late), 0) AS "p50!",
                  coalesce(percentile_disc(0.99) WITHIN GROUP (ORDER BY late), 0) AS "p99!"
           FROM (SELECT extract(epoch FROM lock_at - run_at)::float8 AS late FROM apalis.jobs
                 WHERE job_type = $1 AND status = 'Done' AND run_at >= to_timestamp($2)
                   AND id >= upper(lpad(to_hex((($2 - 1) * 1000)::int8), 12, '0'))) AS claimed"#,
        queue,
        since,
    )
    .fetch_one(repeatable(&bench.pool))
    .await?)
}

/// The volume of the write-ahead log.
#[derive(Debug, Clone, Copy)]
pub struct Wal {
    /// Bytes since the database was created.
    pub bytes: i64,
    /// Full-page images: PostgreSQL logs one for the first change of each page after a checkpoint.
    pub images: i64,
}

/// Reads the volume of the write-ahead log.
pub async fn wal(bench: &Bench) -> Result<Wal, Error> {
    Ok(sqlx::query_as!(
        Wal,
        r#"SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint AS "bytes!", wal_fpi AS "images!" FROM pg_stat_wal"#,
    )
    .fetch_one(repeatable(&bench.pool))
    .await?)
}

/// Transactions of this database, as far as its sessions have reported their statistics.
pub async fn transactions(bench: &Bench) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT xact_commit + xact_rollback AS "count!" FROM pg_stat_database WHERE datname = current_database()"#,
    );
    Ok(count.fetch_one(repeatable(&bench.pool)).await?)
}
