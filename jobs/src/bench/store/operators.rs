//! SQL that fills the tables of queues for the views of operators. Every statement is set-based.

use super::super::Bench;
use runtime::{error::Error, executor::repeatable};

/// Rows of one insert, so that none needs much memory.
const BATCH: i64 = 500_000;
/// Different errors of dead letters.
const ERRORS: i32 = 48;
/// Workers, and the jobs that they run.
const WORKERS: i64 = 8;
const RUNNING: i64 = 400;

/// How many jobs of each kind there are.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub finished: i64,
    pub waiting: i64,
    pub dead: i64,
}

/// Ids of what the views show.
#[derive(Debug, Clone)]
pub struct Samples {
    pub waiting: String,
    pub running: String,
    pub dead: String,
    pub done: String,
    /// The largest group of errors.
    pub group: String,
    pub worker: String,
    pub replay: String,
}

/// Fills the tables: finished jobs of a day, waiting jobs of which half are due, dead letters of a month in 48 groups of
/// very different sizes, 400 running jobs of 8 workers, the counts of a day, and some history.
///
/// # Errors
/// When a statement fails in the database.
pub async fn fill(bench: &Bench, sizes: Sizes) -> Result<(), Error> {
    let mut from = 0;
    while from < sizes.finished {
        let to = sizes.finished.min(from + BATCH);
        add_finished(bench, sizes.finished, from, to).await?;
        from = to;
    }
    add_waiting(bench, sizes.waiting).await?;
    add_dead(bench, sizes.dead).await?;
    add_running(bench).await?;
    add_history(bench).await
}

/// Adds the finished jobs from one number to another, of all finished jobs of a day. The ids have the form and the order
/// of the queue's ids: milliseconds, then the number.
async fn add_finished(bench: &Bench, count: i64, from: i64, to: i64) -> Result<(), Error> {
    let mut session = bench.unlimited_session().await?;
    sqlx::query!(
        "INSERT INTO apalis.jobs (id, job_type, job, priority, run_at, status, attempts, lock_by, lock_at, done_at, last_result)
         SELECT upper(lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || lpad(to_hex(n), 14, '0')),
                CASE WHEN n % 10 < 7 THEN 'process_transaction' WHEN n % 10 < 9 THEN 'index_item' ELSE 'fetch_prices' END,
                convert_to('{\"id\":\"' || n || '\"}', 'UTF8'), 0, at, 'Done', 1, 'bench-worker-' || n % 8, at, at,
                '{\"Ok\": null}'
         FROM (SELECT n, now() - make_interval(secs => 86400.0 * ($1 - n) / $1) AS at
               FROM generate_series($2::bigint + 1, $3::bigint) AS n) AS times",
        count,
        from,
        to,
    )
    .execute(&mut session)
    .await?;
    Ok(())
}

/// Adds waiting jobs of three queues, every second one due.
async fn add_waiting(bench: &Bench, count: i64) -> Result<(), Error> {
    let mut session = bench.unlimited_session().await?;
    sqlx::query!(
        "INSERT INTO apalis.jobs (id, job_type, job, priority, run_at)
         SELECT upper(lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || 'A' || lpad(to_hex(n), 13, '0')),
                CASE WHEN n % 10 < 6 THEN 'process_transaction' WHEN n % 10 < 9 THEN 'index_item' ELSE 'reconcile_rate' END,
                convert_to('{\"id\":\"' || n || '\"}', 'UTF8'), CASE n % 100 WHEN 1 THEN 1 WHEN 2 THEN -1 ELSE 0 END,
                CASE WHEN n % 2 = 0 THEN at ELSE now() + make_interval(secs => n % 86400 + 3600) END
         FROM (SELECT n, now() - make_interval(secs => 3600.0 * ($1 - n) / $1) AS at
               FROM generate_series(1, $1::bigint) AS n) AS times",
        count,
    )
    .execute(&mut session)
    .await?;
    Ok(())
}

/// Adds dead letters, and a hundredth of their number of cancelled jobs.
async fn add_dead(bench: &Bench, count: i64) -> Result<(), Error> {
    let mut session = bench.unlimited_session().await?;
    sqlx::query!(
        "INSERT INTO apalis.jobs (id, job_type, job, priority, run_at, status, attempts, failures, lock_by, lock_at, done_at,
                                  errors, error_group)
         SELECT upper(lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || 'D' || lpad(to_hex(n), 13, '0')),
                CASE WHEN kind % 3 < 2 THEN 'process_transaction' ELSE 'index_item' END,
                convert_to('{\"id\":\"' || n || '\"}', 'UTF8'), 0, at, CASE WHEN n % 100 = 50 THEN 'Cancelled' ELSE 'Killed' END,
                12, 12, 'bench-worker-' || n % 8, at, at,
                jsonb_build_array(jsonb_build_object('at', at, 'run', 12, 'worker', 'bench-worker-0', 'error', error)),
                substr(md5(kind::text), 1, 16)
         FROM (SELECT n, kind, now() - make_interval(secs => 2592000.0 * ($1 - n) / $1) AS at,
                      (ARRAY['error sending request: tcp connect error: Connection refused (os error 111)',
                             'processor returned 422 Unprocessable Entity', 'processor returned 503 Service Unavailable',
                             'the run took longer than 30 s', 'the payload cannot be read: missing field',
                             'deadlock detected'])[1 + kind % 6] || ' in step ' || chr(65 + kind / 6) AS error
               FROM (SELECT n, floor($2::int * power((n * 7919 % 10007) / 10007.0, 3))::int AS kind
                     FROM generate_series(1, $1::bigint) AS n) AS kinds) AS times",
        count,
        ERRORS,
    )
    .execute(&mut session)
    .await?;
    Ok(())
}

/// Adds the workers, which stay live for a day, and the jobs that they run.
async fn add_running(bench: &Bench) -> Result<(), Error> {
    let mut session = bench.unlimited_session().await?;
    sqlx::query!(
        "WITH working AS (
             INSERT INTO apalis.workers (id, worker_type, storage_name, layers, lease, last_seen, started_at, status)
             SELECT 'bench-worker-' || n, 'millrace', 'PostgreSQL', 'process_transaction,index_item,reconcile_rate,fetch_prices',
                    interval '1 day', now(), now() - interval '1 hour',
                    jsonb_build_object('host', 'bench', 'pid', n, 'version', 'bench', 'listening', true, 'draining', false,
                                       'queues', (SELECT jsonb_object_agg(queue, jsonb_build_object('slots', 64, 'running', 12))
                                                  FROM unnest(ARRAY['process_transaction', 'index_item', 'reconcile_rate',
                                                                    'fetch_prices']) AS queue))
             FROM generate_series(0, $2::bigint - 1) AS n
         )
         INSERT INTO apalis.jobs (id, job_type, job, priority, run_at, status, attempts, lock_by, lock_at)
         SELECT upper(lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || 'E' || lpad(to_hex(n), 13, '0')),
                CASE WHEN n % 4 < 3 THEN 'process_transaction' ELSE 'index_item' END, convert_to('{}', 'UTF8'), 0, at, 'Running',
                1, 'bench-worker-' || n % $2, at
         FROM (SELECT n, now() - make_interval(secs => n * 0.1) AS at FROM generate_series(1, $1::bigint) AS n) AS times",
        RUNNING,
        WORKERS,
    )
    .execute(&mut session)
    .await?;
    Ok(())
}

/// Adds the minutes of a day, the hours of two weeks, 10,000 actions of operators and 200 replays.
async fn add_history(bench: &Bench) -> Result<(), Error> {
    let mut session = bench.unlimited_session().await?;
    sqlx::query!(
        "INSERT INTO queue_minutes (queue, minute, process, enqueued, started, done, retried, snoozed, dead, cancelled,
                                    rescued, fenced, run_us, waits, runs)
         SELECT queue, date_trunc('minute', now()) - make_interval(mins => age), 'bench-' || process, 90, 80, 78, 1, 0,
                CASE WHEN age % 20 = 0 THEN 5 ELSE 0 END, 0, 0, 0,
                4000000, array_fill(5::bigint, ARRAY[15]), array_fill(5::bigint, ARRAY[15])
         FROM unnest(ARRAY['process_transaction', 'index_item', 'reconcile_rate', 'fetch_prices']) AS queue,
              generate_series(0, 1439) AS age, generate_series(1, $1::bigint) AS process",
        WORKERS,
    )
    .execute(&mut session)
    .await?;
    // The two weeks before, as the cleaner sums them.
    sqlx::query!(
        "INSERT INTO queue_hours (queue, hour, enqueued, started, done, retried, snoozed, dead, cancelled, rescued, fenced,
                                  run_us, waits, runs)
         SELECT queue, date_trunc('hour', now(), 'UTC') - make_interval(hours => age), 90, 80, 78, 1, 0, 5, 0, 0, 0, 4000000,
                array_fill(5::bigint, ARRAY[15]), array_fill(5::bigint, ARRAY[15])
         FROM unnest(ARRAY['process_transaction', 'index_item', 'reconcile_rate', 'fetch_prices']) AS queue,
              generate_series(1, 336) AS age"
    )
    .execute(&mut session)
    .await?;
    sqlx::query!(
        "INSERT INTO operator_actions (at, actor, via, action, target, reason, count)
         SELECT now() - make_interval(mins => 10000 - n), 'ada', 'cli', 'pause', 'process_transaction', 'benchmark', 1
         FROM generate_series(1, 10000) AS n"
    )
    .execute(&mut session)
    .await?;
    sqlx::query!(
        "INSERT INTO replays (id, queue, rate, canary, stop_if_dead, max_jobs, state, replayed, ended_at)
         SELECT lpad(to_hex(n), 32, '0')::uuid, 'process_transaction', 20, 10, 0.2, 500, 'done', 500, now()
         FROM generate_series(1, 200) AS n"
    )
    .execute(&mut session)
    .await?;
    for table in ["queue_minutes", "queue_hours", "operator_actions", "replays", "apalis.workers"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("ANALYZE {table}"))).execute(&mut session).await?;
    }
    Ok(())
}

/// Returns ids of what [`fill`] has added.
///
/// # Errors
/// When a statement fails in the database.
pub async fn samples(bench: &Bench) -> Result<Samples, Error> {
    Ok(sqlx::query_as!(
        Samples,
        r#"SELECT (SELECT id FROM apalis.jobs WHERE status = 'Pending' AND job_type = 'process_transaction'
                   ORDER BY job_type, priority, run_at LIMIT 1) AS "waiting!",
                  (SELECT id FROM apalis.jobs WHERE status = 'Running' ORDER BY lock_by LIMIT 1) AS "running!",
                  (SELECT id FROM apalis.jobs WHERE status = 'Killed' AND job_type = 'index_item' ORDER BY id LIMIT 1) AS "dead!",
                  (SELECT id FROM apalis.jobs WHERE id > '0' ORDER BY id LIMIT 1) AS "done!",
                  (SELECT substr(md5('0'), 1, 16)) AS "group!", 'bench-worker-0' AS "worker!",
                  (SELECT max(id::text) FROM replays) AS "replay!""#
    )
    .fetch_one(repeatable(&bench.pool))
    .await?)
}

/// Empties the tables that only [`fill`] fills; [`clear`](super::clear) empties the others.
///
/// # Errors
/// When a statement fails in the database.
pub async fn clear(bench: &Bench) -> Result<(), Error> {
    sqlx::query!("TRUNCATE queue_minutes, queue_hours, operator_actions, replays, replayed_jobs, apalis.workers")
        .execute(repeatable(&bench.pool))
        .await?;
    super::clear(bench).await
}

/// The finished jobs of a queue that the workers have counted.
///
/// # Errors
/// When a statement fails in the database.
pub async fn counted(bench: &Bench, queue: &str) -> Result<i64, Error> {
    let counted = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(done), 0)::int8 AS "counted!" FROM queue_minutes WHERE queue = $1"#,
        queue
    );
    Ok(counted.fetch_one(repeatable(&bench.pool)).await?)
}

/// Sequential scans of the table of jobs, as far as the sessions have reported them. A session reports when it ends.
///
/// # Errors
/// When a statement fails in the database.
pub async fn sequential_scans(bench: &Bench) -> Result<i64, Error> {
    let scans = sqlx::query_scalar!(
        r#"SELECT seq_scan AS "scans!" FROM pg_stat_user_tables WHERE schemaname = 'apalis' AND relname = 'jobs'"#
    );
    Ok(scans.fetch_one(repeatable(&bench.pool)).await?)
}
