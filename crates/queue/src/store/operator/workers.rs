//! The SQL of the list of workers.

use sqlx::{PgExecutor, Result, types::JsonValue};

use crate::ReadTime;
use runtime::{db::Pool, executor::repeatable};

pub struct WorkerRow {
    pub id: String,
    pub live: bool,
    pub started_at: Option<ReadTime>,
    pub silent_seconds: f64,
    pub lease_seconds: f64,
    pub running: i64,
    pub oldest_run_seconds: Option<f64>,
    pub drain: bool,
    pub status: Option<JsonValue>,
    pub claim_errors: Option<JsonValue>,
}

/// Selects workers. `$which` follows the name of the table, and `$order` is the order of the result. Running jobs are
/// counted on their partial index, up to 10,000 a worker.
macro_rules! select_workers {
    ($which:tt, $order:tt $(, $parameter:expr)*) => {
        sqlx::query_as!(
            WorkerRow,
            r#"SELECT id AS "id!", silent < lease_seconds AND silent > -lease_seconds AS "live!",
                  started_at AS "started_at: ReadTime", silent AS "silent_seconds!", lease_seconds AS "lease_seconds!",
                  held.jobs AS "running!", extract(epoch FROM clock_timestamp() - held.oldest)::float8 AS oldest_run_seconds,
                  drain AS "drain!", status, claim_errors
           FROM (SELECT *, (extract(epoch FROM now()) - extract(epoch FROM last_seen))::float8 AS silent,
                        extract(epoch FROM lease)::float8 AS lease_seconds
                 FROM apalis.workers "#
                + $which
                + r#") AS worker
           CROSS JOIN LATERAL (
               SELECT count(*) AS jobs, min(least(greatest(lock_at, '1970-01-01'), now())) AS oldest
               FROM (SELECT lock_at FROM apalis.jobs WHERE status = 'Running' AND lock_by = worker.id LIMIT 10000) AS running
           ) AS held
           ORDER BY "#
                + $order
            $(, $parameter)*
        )
    };
}

/// Lists the workers that were seen last, live ones first.
pub(crate) async fn workers(pool: &Pool) -> Result<Vec<WorkerRow>> {
    let rows = select_workers!("ORDER BY last_seen DESC LIMIT 1000", "2 DESC, id");
    rows.fetch_all(repeatable(pool)).await
}

/// Lists workers after an id, by their ids: a range of the primary key. An index for another order would slow down every
/// heartbeat.
pub(crate) async fn page(pool: &Pool, after: &str, limit: i64) -> Result<Vec<WorkerRow>> {
    let rows = select_workers!("WHERE id > $1 ORDER BY id LIMIT $2", "id", after, limit);
    rows.fetch_all(repeatable(pool)).await
}

/// Finds a worker.
pub(crate) async fn find(pool: &Pool, id: &str) -> Result<Option<WorkerRow>> {
    let row = select_workers!("WHERE id = $1", "id", id);
    row.fetch_optional(repeatable(pool)).await
}

/// Asks a worker to stop. Returns whether there is one of this name.
pub(crate) async fn drain(executor: impl PgExecutor<'_>, worker: &str) -> Result<bool> {
    let drained = sqlx::query!("UPDATE apalis.workers SET drain = true WHERE id = $1", worker);
    Ok(drained.execute(executor).await?.rows_affected() == 1)
}
