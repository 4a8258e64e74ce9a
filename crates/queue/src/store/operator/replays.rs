//! The SQL of replays.

use sqlx::{Result, types::Json};
use uuid::Uuid;

use crate::{
    ReadTime,
    replay::{Pace, REPLAYS_WITHOUT_ASKING, Replay, Selection, Skip},
    store::{list::JobRow, results::EVENTS_KEPT},
};
use runtime::{
    db::Pool,
    executor::{Transaction, repeatable},
};

/// Selects ids of dead letters by a [`Selection`] in the order of their ids: `$1` queue, `$2` group, `$3` error. With a
/// group it is a range of `jobs_dead_by_error`, else one of `jobs_dead`.
macro_rules! select_dead {
    ($selection:expr, $columns:tt, $more:tt $(, $parameter:expr)*) => {
        sqlx::query!(
            "SELECT " + $columns + r#" FROM apalis.jobs
             WHERE status = 'Killed' AND job_type = $1 AND ($2::text IS NULL OR coalesce(error_group, '') = $2)
               AND ($3::text IS NULL OR position($3 IN errors -> -1 ->> 'error') > 0) "# + $more,
            $selection.queue,
            $selection.group,
            $selection.error
            $(, $parameter)*
        )
    };
}

/// The number of selected dead letters, and how many of them were replayed often.
pub(crate) struct Count {
    pub all: i64,
    /// Those that were replayed [`REPLAYS_WITHOUT_ASKING`] times or more.
    pub replayed_before: i64,
    /// The database's clock.
    pub at: ReadTime,
}

/// Counts the oldest selected dead letters, up to `limit`.
pub(crate) async fn count(pool: &Pool, selection: &Selection, limit: i64) -> Result<Count> {
    sqlx::query_as!(
        Count,
        r#"SELECT count(*) AS "all!", count(*) FILTER (WHERE replays >= $5) AS "replayed_before!", now() AS "at!: ReadTime" FROM (
               SELECT replays FROM apalis.jobs
               WHERE status = 'Killed' AND job_type = $1 AND ($2::text IS NULL OR coalesce(error_group, '') = $2)
                 AND ($3::text IS NULL OR position($3 IN errors -> -1 ->> 'error') > 0)
                 AND ($6::timestamptz IS NULL OR done_at <= $6)
               ORDER BY id LIMIT $4) AS selected"#,
        selection.queue,
        selection.group,
        selection.error,
        limit,
        REPLAYS_WITHOUT_ASKING,
        selection.died_before,
    )
    .fetch_one(repeatable(pool))
    .await
}

/// Lists the oldest selected dead letters.
pub(crate) async fn samples(pool: &Pool, selection: &Selection, limit: i64) -> Result<Vec<JobRow>> {
    sqlx::query_as!(
        JobRow,
        r#"SELECT id AS "id!", job_type AS "queue!", status AS "status!", priority AS "priority!", attempts AS "claims!",
                  failures AS "failures!", crashes AS "crashes!", run_at AS "due_at!: ReadTime",
                  clock_timestamp() AS "now!: ReadTime", lock_by AS worker, lock_at AS "started_at: ReadTime",
                  done_at AS "ended_at: ReadTime", errors -> -1 ->> 'error' AS last_error, error_group,
                  idempotency_key AS key,
                  metadata -> 'correlation_id' AS correlation_id, metadata -> 'traceparent' AS traceparent
           FROM apalis.jobs
           WHERE status = 'Killed' AND job_type = $1 AND ($2::text IS NULL OR coalesce(error_group, '') = $2)
             AND ($3::text IS NULL OR position($3 IN errors -> -1 ->> 'error') > 0)
             AND ($5::timestamptz IS NULL OR done_at <= $5)
           ORDER BY id LIMIT $4"#,
        selection.queue,
        selection.group,
        selection.error,
        limit,
        selection.died_before,
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Creates a replay that takes the dead letters which have died until now, or until the time of the selection.
pub(crate) async fn insert(tx: &mut Transaction, id: Uuid, selection: &Selection, pace: Pace) -> Result<Replay> {
    let row = sqlx::query_as!(
        Replay,
        r#"INSERT INTO replays (id, queue, error_group, error, rate, canary, stop_if_dead, max_jobs, died_before)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, least($9::timestamptz, clock_timestamp()))
           RETURNING id, queue, error_group, error, rate, canary, stop_if_dead, max_jobs, state, stopped_because, replayed,
                     skipped, skips AS "skips: Json<Vec<Skip>>", created_at, ended_at"#,
        id,
        selection.queue,
        selection.group,
        selection.error,
        pace.rate,
        i64::from(pace.canary),
        pace.stop_if_dead,
        i64::from(pace.limit),
        selection.died_before,
    );
    row.fetch_one(&mut *tx).await
}

/// Lists replays before an id, newest first.
pub(crate) async fn list(pool: &Pool, before: Uuid, limit: i64) -> Result<Vec<Replay>> {
    let rows = sqlx::query_as!(
        Replay,
        r#"SELECT id, queue, error_group, error, rate, canary, stop_if_dead, max_jobs, state, stopped_because, replayed,
                  skipped, skips AS "skips: Json<Vec<Skip>>", created_at, ended_at
           FROM replays WHERE id < $1 ORDER BY id DESC LIMIT $2"#,
        before,
        limit,
    );
    rows.fetch_all(repeatable(pool)).await
}

/// Finds a replay.
pub(crate) async fn find(pool: &Pool, id: Uuid) -> Result<Option<Replay>> {
    let row = sqlx::query_as!(
        Replay,
        r#"SELECT id, queue, error_group, error, rate, canary, stop_if_dead, max_jobs, state, stopped_because, replayed,
                  skipped, skips AS "skips: Json<Vec<Skip>>", created_at, ended_at
           FROM replays WHERE id = $1"#,
        id,
    );
    row.fetch_optional(repeatable(pool)).await
}

/// Changes the state of a replay if it is one of `from`. Returns whether it was.
pub(crate) async fn change(
    tx: &mut Transaction,
    id: Uuid,
    from: &[&str],
    to: &str,
    reason: Option<&str>,
) -> Result<bool> {
    let changed = sqlx::query!(
        "UPDATE replays SET state = $3, stopped_because = $4, next_at = greatest(next_at, clock_timestamp()),
                ended_at = CASE WHEN $3 = 'stopped' THEN clock_timestamp() END
         WHERE id = $1 AND state = ANY($2)",
        id,
        from as &[&str],
        to,
        reason,
    );
    Ok(changed.execute(&mut *tx).await?.rows_affected() == 1)
}

/// Continues a stopped replay if the reason of its stop begins with `because`.
pub(crate) async fn reopen(tx: &mut Transaction, id: Uuid, because: &str) -> Result<()> {
    sqlx::query!(
        "UPDATE replays SET state = 'running', stopped_because = NULL, ended_at = NULL
         WHERE id = $1 AND state = 'stopped' AND starts_with(stopped_because, $2)",
        id,
        because,
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// What a step of a replay needs.
pub(crate) struct Running {
    pub id: Uuid,
    pub queue: String,
    pub error_group: Option<String>,
    pub error: Option<String>,
    pub rate: f64,
    pub canary: i64,
    pub stop_if_dead: f64,
    pub max_jobs: i64,
    pub state: String,
    pub replayed: i64,
    pub last_id: String,
    /// Seconds since the last job of it was due.
    pub over: f64,
}

/// Locks a replay until the transaction ends.
pub(crate) async fn lock(tx: &mut Transaction, id: Uuid) -> Result<Option<Running>> {
    sqlx::query_as!(
        Running,
        r#"SELECT id, queue, error_group, error, rate, canary, stop_if_dead, max_jobs, state, replayed, last_id,
                  extract(epoch FROM clock_timestamp() - next_at)::float8 AS "over!"
           FROM replays WHERE id = $1 FOR UPDATE"#,
        id,
    )
    .fetch_optional(&mut *tx)
    .await
}

/// What has become of the newest 1,000 jobs of a replay.
pub(crate) struct Outcomes {
    pub dead: i64,
    /// Done, cancelled, or deleted since.
    pub good: i64,
    /// Waiting or running.
    pub live: i64,
}

/// Reads what has become of the jobs of a replay, by their primary keys.
pub(crate) async fn outcomes(tx: &mut Transaction, id: Uuid) -> Result<Outcomes> {
    sqlx::query_as!(
        Outcomes,
        r#"SELECT count(*) FILTER (WHERE status = 'Killed') AS "dead!",
                  count(*) FILTER (WHERE status IS NULL OR status NOT IN ('Killed', 'Pending', 'Running')) AS "good!",
                  count(*) FILTER (WHERE status IN ('Pending', 'Running')) AS "live!"
           FROM (SELECT job FROM replayed_jobs WHERE replay = $1 ORDER BY number DESC LIMIT 1000) AS newest
           LEFT JOIN apalis.jobs ON jobs.id = newest.job"#,
        id,
    )
    .fetch_one(&mut *tx)
    .await
}

/// A dead letter of a batch.
pub(crate) struct DeadJob {
    pub id: String,
    pub payload: Vec<u8>,
}

/// Locks the next dead letters of a replay.
pub(crate) async fn next(
    tx: &mut Transaction,
    selection: &Selection,
    replay: &Running,
    limit: i64,
) -> Result<Vec<DeadJob>> {
    let rows = select_dead!(
        selection,
        "id, job",
        "AND id > $4 AND done_at <= (SELECT died_before FROM replays WHERE id = $5) ORDER BY id LIMIT $6 FOR UPDATE",
        replay.last_id,
        replay.id,
        limit
    );
    Ok(rows.fetch_all(&mut *tx).await?.into_iter().map(|row| DeadJob { id: row.id, payload: row.job }).collect())
}

/// The number of skipped jobs that are kept with a replay, the newest ones.
const SKIPS_KEPT: usize = 20;

/// Spreads the replayed jobs of a batch over time by the rate, records the replay with each of them, and records the
/// batch. Returns the seconds until the next batch is due.
///
/// The batch is due at most `ahead` seconds from now, as far ahead as a batch before it can reach. A later `next_at` comes
/// from a clock that was ahead and was set back; the replay would wait until then.
pub(crate) async fn record(
    tx: &mut Transaction,
    replay: &Running,
    jobs: &[String],
    skips: &[Skip],
    last_id: &str,
    ahead: f64,
) -> Result<f64> {
    let newest = &skips[skips.len().saturating_sub(SKIPS_KEPT)..];
    sqlx::query_scalar!(
        r#"WITH start AS (
               SELECT greatest(least(next_at, clock_timestamp() + make_interval(secs => $9)), clock_timestamp()) AS at, replayed
               FROM replays WHERE id = $1
           ), batch AS (
               SELECT id, number FROM unnest($2::text[]) WITH ORDINALITY AS batch (id, number)
           ), spread AS (
               UPDATE apalis.jobs
               SET run_at = start.at + make_interval(secs => (batch.number - 1) / $3::float8),
                   events = CASE WHEN jsonb_typeof(events) IS DISTINCT FROM 'array' THEN '[]'
                                 WHEN jsonb_array_length(events) >= $8 THEN events - 0 ELSE events END
                       || jsonb_build_object('at', clock_timestamp(), 'event', 'replayed', 'replay', $1::uuid, 'by',
                              (SELECT actor FROM operator_actions WHERE target = $1::uuid::text AND action = 'replay'
                               ORDER BY id LIMIT 1))
               FROM batch, start WHERE jobs.id = batch.id
           ), noted AS (
               INSERT INTO replayed_jobs (replay, number, job) SELECT $1, start.replayed + batch.number, batch.id FROM batch, start
           )
           UPDATE replays
           SET replayed = replays.replayed + cardinality($2), skipped = skipped + $4, last_id = $5,
               next_at = start.at + make_interval(secs => cardinality($2) / $3::float8),
               skips = (SELECT coalesce(jsonb_agg(skip ORDER BY number), '[]')
                        FROM (SELECT skip, number FROM jsonb_array_elements(skips || $6) WITH ORDINALITY AS kept (skip, number)
                              ORDER BY number DESC LIMIT $7) AS newest)
           FROM start WHERE id = $1
           RETURNING extract(epoch FROM next_at - clock_timestamp())::float8 AS "wait!""#,
        replay.id,
        jobs,
        replay.rate,
        i64::try_from(skips.len()).unwrap_or(i64::MAX),
        last_id,
        Json(newest) as _,
        SKIPS_KEPT as i64,
        EVENTS_KEPT,
        ahead,
    )
    .fetch_one(&mut *tx)
    .await
}

/// Sets the state of a replay that has sent its last job.
pub(crate) async fn watch(tx: &mut Transaction, id: Uuid) -> Result<()> {
    sqlx::query!("UPDATE replays SET state = 'watching' WHERE id = $1", id).execute(&mut *tx).await?;
    Ok(())
}

/// Ends a replay.
pub(crate) async fn finish(tx: &mut Transaction, id: Uuid, state: &str, because: Option<&str>) -> Result<()> {
    sqlx::query!(
        "UPDATE replays SET state = $2, stopped_because = $3, ended_at = clock_timestamp() WHERE id = $1",
        id,
        state,
        because,
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Cancels the oldest selected dead letters. Returns their number.
pub(crate) async fn discard(tx: &mut Transaction, selection: &Selection, limit: i64) -> Result<u64> {
    let discarded = sqlx::query!(
        "UPDATE apalis.jobs SET status = 'Cancelled', done_at = now()
         WHERE id = ANY(ARRAY(
             SELECT id FROM apalis.jobs
             WHERE status = 'Killed' AND job_type = $1 AND ($2::text IS NULL OR coalesce(error_group, '') = $2)
               AND ($3::text IS NULL OR position($3 IN errors -> -1 ->> 'error') > 0)
               AND ($5::timestamptz IS NULL OR done_at <= $5)
             ORDER BY id LIMIT $4 FOR UPDATE))",
        selection.queue,
        selection.group,
        selection.error,
        limit,
        selection.died_before,
    );
    Ok(discarded.execute(&mut *tx).await?.rows_affected())
}
