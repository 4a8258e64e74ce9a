//! Compares the settled transactions in the database with the responses that the clients got.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::Value;
use sqlx::{PgPool, Row};

use super::clients::History;

/// A trigger that logs every change of a transaction by any session.
const LOG_EVERY_CHANGE: &str = "
    CREATE TABLE changes (transaction_id text NOT NULL, before text NOT NULL, after text, at timestamptz NOT NULL);
    CREATE FUNCTION log_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO changes VALUES (OLD.transaction_id, OLD.status, CASE TG_OP WHEN 'UPDATE' THEN NEW.status END, now());
        RETURN NULL;
    END $$;
    CREATE TRIGGER log_change AFTER UPDATE OR DELETE ON transactions FOR EACH ROW EXECUTE FUNCTION log_change();";

/// The final state of the transactions and their jobs.
#[derive(Debug)]
pub(super) struct Settlements {
    /// Recorded transactions, acknowledged or not.
    pub transactions: usize,
    /// Claims after the first one of each job.
    pub claimed_again: i64,
    /// Runs that ended in an error.
    pub failures: i64,
    /// Runs during which a worker died.
    pub crashes: i64,
    /// The highest number of crashes of one job.
    pub most_crashes: i32,
}

/// Installs the trigger that logs every change.
pub(super) async fn log_changes(pool: &PgPool) {
    sqlx::raw_sql(LOG_EVERY_CHANGE).execute(pool).await.expect("a trigger");
}

/// Waits until every transaction is settled and every job done.
pub(super) async fn wait_until_settled(pool: &PgPool, deadline: Duration) {
    const UNSETTLED: &str = "
        SELECT concat_ws(' ', t.transaction_id, t.status, job.status, 'claims', job.attempts, 'failures', job.failures,
                         'crashes', job.crashes, 'by', job.lock_by, 'seen', now() - worker.last_seen,
                         'due in', job.run_at - now(), job.errors -> -1 ->> 'error')
        FROM transactions AS t
        LEFT JOIN apalis.jobs AS job ON convert_from(job.job, 'UTF8')::jsonb ->> 'id' = t.id::text
        LEFT JOIN apalis.workers AS worker ON worker.id = job.lock_by
        WHERE t.status = 'PROCESSING' OR job.status IS DISTINCT FROM 'Done' LIMIT 10";
    let begun = Instant::now();
    while !is_settled(pool).await.unwrap_or(false) {
        if begun.elapsed() > deadline {
            let unsettled = sqlx::query_scalar::<_, String>(UNSETTLED).fetch_all(pool).await;
            panic!("not everything is settled after {deadline:?}; for example: {unsettled:#?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_settled(pool: &PgPool) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT FROM transactions WHERE status = 'PROCESSING')
            AND NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')",
    )
    .fetch_one(pool)
    .await
}

/// Asserts that every acknowledged transaction exists, settled once, and has the state that the clients saw.
pub(super) async fn assert_consistent(pool: &PgPool, history: &History) -> Settlements {
    let rows = sqlx::query(
        r#"SELECT transaction_id, status, to_char(processed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
           FROM transactions"#,
    );
    let rows = rows.fetch_all(pool).await.expect("the transactions");
    let recorded: HashMap<String, (String, String)> =
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    for (id, (status, processed_at)) in &history.acknowledged {
        let Some(stored) = recorded.get(id) else { panic!("{id} was acknowledged and is lost") };
        assert_eq!(stored.0, "PROCESSED", "{id}");
        if status != "PROCESSING" {
            assert_eq!(*processed_at, Value::String(stored.1.clone()), "{id}: seen by the client, and stored");
        }
    }
    let other: Vec<_> = recorded.iter().filter(|(_, (status, _))| status != "PROCESSED").collect();
    assert!(other.is_empty(), "not processed: {other:?}");

    let changes = "SELECT transaction_id || ' ' || string_agg(before || '→' || coalesce(after, 'deleted'), ', ')
                   FROM changes GROUP BY transaction_id
                   HAVING count(*) <> 1 OR min(before) <> 'PROCESSING' OR max(after) IS DISTINCT FROM 'PROCESSED'";
    let wrong: Vec<String> = sqlx::query_scalar(changes).fetch_all(pool).await.expect("the changes");
    assert!(wrong.is_empty(), "settled more than once or backwards: {wrong:#?}");
    let changed: i64 = sqlx::query_scalar("SELECT count(*) FROM changes").fetch_one(pool).await.expect("the changes");
    assert_eq!(changed as usize, recorded.len(), "one settlement per transaction");

    let jobs = sqlx::query(
        "SELECT count(*), coalesce(sum(attempts - 1), 0), coalesce(sum(failures), 0), coalesce(sum(crashes), 0),
                coalesce(max(crashes), 0)
         FROM apalis.jobs WHERE status = 'Done'",
    );
    let jobs = jobs.fetch_one(pool).await.expect("the jobs");
    assert_eq!(jobs.get::<i64, _>(0) as usize, recorded.len(), "one job per transaction");
    Settlements {
        transactions: recorded.len(),
        claimed_again: jobs.get(1),
        failures: jobs.get(2),
        crashes: jobs.get(3),
        most_crashes: jobs.get(4),
    }
}
