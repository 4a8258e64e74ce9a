//! The SQL of the proof: triggers that observe the product from outside, and the state at the end.

use std::path::Path;

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgRow},
};

use crate::history::{Event, State};

/// Records every settlement, every renewal of a lease, and every change of a job's state with the session that made it.
///
/// A renewal gets the time at which it has locked its row. A change of a job gets the time of its statement; a completed
/// one, that of the change itself. The rules of the checker depend on these choices.
const OBSERVE: &str = "
    CREATE SCHEMA prove;
    CREATE TABLE prove.settlements (transaction_id text NOT NULL);
    CREATE TABLE prove.renewals (worker text NOT NULL, at timestamptz NOT NULL, lease interval NOT NULL);
    CREATE TABLE prove.changes (change text NOT NULL, job text NOT NULL, kind text NOT NULL, run integer NOT NULL,
                                role text NOT NULL, worker text, at timestamptz NOT NULL);
    GRANT USAGE ON SCHEMA prove TO PUBLIC;
    GRANT INSERT, SELECT ON ALL TABLES IN SCHEMA prove TO PUBLIC;
    CREATE FUNCTION prove.settled() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO prove.settlements VALUES (NEW.transaction_id);
        RETURN NULL;
    END $$;
    CREATE FUNCTION prove.renewed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO prove.renewals VALUES (NEW.id, clock_timestamp(), NEW.lease);
        RETURN NULL;
    END $$;
    CREATE FUNCTION prove.changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO prove.changes VALUES (
            CASE WHEN NEW.status = 'Done' THEN 'completed' WHEN NEW.status = 'Running' THEN 'claimed'
                 WHEN NEW.crashes > OLD.crashes THEN 'rescued' WHEN NEW.failures > OLD.failures THEN 'retried'
                 ELSE 'other' END,
            NEW.id, NEW.job_type, NEW.attempts, session_user,
            CASE WHEN NEW.status = 'Running' THEN NEW.lock_by ELSE OLD.lock_by END,
            CASE WHEN NEW.status = 'Done' THEN clock_timestamp() ELSE now() END);
        RETURN NULL;
    END $$;
    CREATE TRIGGER prove_settled AFTER UPDATE ON transactions FOR EACH ROW
        WHEN (NEW.status <> 'PROCESSING' AND OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION prove.settled();
    CREATE TRIGGER prove_registered AFTER INSERT ON apalis.workers FOR EACH ROW EXECUTE FUNCTION prove.renewed();
    CREATE TRIGGER prove_renewed AFTER UPDATE ON apalis.workers FOR EACH ROW
        WHEN (NEW.last_seen <> OLD.last_seen) EXECUTE FUNCTION prove.renewed();
    CREATE TRIGGER prove_changed AFTER UPDATE ON apalis.jobs FOR EACH ROW
        WHEN (NEW.status <> OLD.status) EXECUTE FUNCTION prove.changed();";

/// A session that belongs to the proof.
pub(crate) async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    options.clone().application_name("prove").disable_statement_logging().connect().await
}

async fn run(options: &PgConnectOptions, statement: String) -> sqlx::Result<()> {
    let mut session = connect(options).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut session).await?;
    session.close().await
}

/// Creates an empty database. The names of the proof need no quotes.
pub(crate) async fn create_database(maintenance: &PgConnectOptions, name: &str) -> sqlx::Result<()> {
    run(maintenance, format!("CREATE DATABASE {name}")).await
}

/// Creates a database as a copy of another one, which must have no sessions.
pub(crate) async fn copy_database(maintenance: &PgConnectOptions, template: &str, name: &str) -> sqlx::Result<()> {
    run(maintenance, format!("CREATE DATABASE {name} TEMPLATE {template}")).await
}

/// Drops a database with all its sessions.
pub(crate) async fn drop_database(maintenance: &PgConnectOptions, name: &str) -> sqlx::Result<()> {
    run(maintenance, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
}

/// Installs the triggers in a migrated database.
pub(crate) async fn observe(session: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(OBSERVE).execute(session).await.map(drop)
}

/// The newest migration of ours that a database has.
pub(crate) async fn last_migration(session: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT max(version) FROM public._sqlx_migrations").fetch_one(session).await
}

/// Creates a role for the sessions of one process, unless it exists. It may do everything.
pub(crate) async fn create_role(session: &mut PgConnection, role: &str) -> sqlx::Result<()> {
    let exists = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)";
    if !sqlx::query_scalar::<_, bool>(exists).bind(role).fetch_one(&mut *session).await? {
        let create = AssertSqlSafe(format!("CREATE ROLE {role} LOGIN SUPERUSER"));
        sqlx::raw_sql(create).execute(session).await?;
    }
    Ok(())
}

/// Sets a parameter of the server, or resets it, and reloads the configuration.
pub(crate) async fn configure(session: &mut PgConnection, name: &str, value: Option<&str>) -> sqlx::Result<()> {
    let change = match value {
        Some(value) => format!("ALTER SYSTEM SET {name} = {value}"),
        None => format!("ALTER SYSTEM RESET {name}"),
    };
    sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut *session).await?;
    sqlx::query("SELECT pg_reload_conf()").execute(session).await.map(drop)
}

/// Ends the present file of the write-ahead log, which fills it to its whole size.
pub(crate) async fn switch_wal(session: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_switch_wal()").execute(session).await.map(drop)
}

/// The server processes of the product's sessions in this database; only those of this role, such as `listener`.
pub(crate) async fn sessions(session: &mut PgConnection, role: &str) -> sqlx::Result<Vec<i32>> {
    let query = "SELECT pid FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name LIKE 'millrace ' || $1";
    sqlx::query_scalar(query).bind(role).fetch_all(session).await
}

/// Terminates sessions.
pub(crate) async fn terminate(session: &mut PgConnection, pids: &[i32]) -> sqlx::Result<()> {
    let terminate = "SELECT pg_terminate_backend(pid) FROM unnest($1::integer[]) AS p (pid)";
    sqlx::query(terminate).bind(pids).execute(session).await.map(drop)
}

/// The tablespace on a small disk.
pub(crate) const SMALL_DISK: &str = "prove_small_disk";

/// Creates the tablespace of the small disk in this folder.
pub(crate) async fn create_tablespace(session: &mut PgConnection, folder: &Path) -> sqlx::Result<()> {
    let create = format!("CREATE TABLESPACE {SMALL_DISK} LOCATION '{}'", folder.display());
    sqlx::raw_sql(AssertSqlSafe(create)).execute(session).await.map(drop)
}

/// Moves tables to a tablespace.
pub(crate) async fn move_tables(session: &mut PgConnection, tables: &[&str], tablespace: &str) -> sqlx::Result<()> {
    for table in tables {
        let alter = AssertSqlSafe(format!("ALTER TABLE {table} SET TABLESPACE {tablespace}"));
        sqlx::raw_sql(alter).execute(&mut *session).await?;
    }
    Ok(())
}

/// Drops the tablespace of the small disk, which must be empty.
pub(crate) async fn drop_tablespace(session: &mut PgConnection) -> sqlx::Result<()> {
    // Files of moved tables are removed by the next checkpoint.
    sqlx::raw_sql("CHECKPOINT").execute(&mut *session).await?;
    sqlx::raw_sql(AssertSqlSafe(format!("DROP TABLESPACE {SMALL_DISK}"))).execute(session).await.map(drop)
}

/// Opens a snapshot that stays pinned as long as the session lives.
pub(crate) async fn pin_snapshot(session: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM apalis.workers")
        .execute(session)
        .await
        .map(drop)
}

/// Pauses a queue, so that its jobs wait.
pub(crate) async fn pause(session: &mut PgConnection, queue: &str) -> sqlx::Result<()> {
    let pause = "INSERT INTO queues (name, paused_at, reason) VALUES ($1, now(), 'prove')
                 ON CONFLICT (name) DO UPDATE SET paused_at = now(), reason = 'prove'";
    sqlx::query(pause).bind(queue).execute(session).await.map(drop)
}

/// Adds a job that is due.
pub(crate) async fn add_job(session: &mut PgConnection, kind: &str, payload: &serde_json::Value) -> sqlx::Result<()> {
    let insert = "INSERT INTO apalis.jobs (id, job_type, job, run_at)
                  VALUES ('0' || upper(substr(md5(random()::text), 1, 25)), $1, convert_to($2, 'UTF8'), now())";
    sqlx::query(insert).bind(kind).bind(payload.to_string()).execute(session).await.map(drop)
}

/// Adds a task that is due, with this id, without a notification. Each pause is of one failure, in milliseconds.
pub(crate) async fn add_task(session: &mut PgConnection, id: &str, pauses_ms: &[u64]) -> sqlx::Result<()> {
    let insert = "INSERT INTO apalis.jobs (id, job_type, job, run_at)
                  VALUES ($1, 'prove_task', convert_to($2, 'UTF8'), now())";
    let payload = serde_json::json!({ "pauses_ms": pauses_ms }).to_string();
    sqlx::query(insert).bind(id).bind(payload).execute(session).await.map(drop)
}

/// Adds limited jobs that are due: an id, the name of its key, and the number of that key for each.
pub(crate) async fn add_limited(session: &mut PgConnection, jobs: &[(String, String, i64)]) -> sqlx::Result<()> {
    let insert = "INSERT INTO apalis.jobs (id, job_type, job, fair_key, run_at)
                  SELECT id, 'prove_limited', convert_to(json_build_object('key', key)::text, 'UTF8'), fair_key, now()
                  FROM unnest($1::text[], $2::text[], $3::bigint[]) AS new (id, key, fair_key)";
    let ids: Vec<&str> = jobs.iter().map(|(id, ..)| &**id).collect();
    let keys: Vec<&str> = jobs.iter().map(|(_, key, _)| &**key).collect();
    let fair_keys: Vec<i64> = jobs.iter().map(|(.., fair_key)| *fair_key).collect();
    sqlx::query(insert).bind(ids).bind(keys).bind(fair_keys).execute(session).await.map(drop)
}

/// Whether a job of this kind has seen two crashes and is not finished. A third one would make it a dead letter.
pub(crate) async fn has_two_crashes(session: &mut PgConnection, kind: &str) -> sqlx::Result<bool> {
    let query = "SELECT EXISTS (SELECT FROM apalis.jobs
                                WHERE job_type = $1 AND crashes >= 2 AND status IN ('Pending', 'Running'))";
    sqlx::query_scalar(query).bind(kind).fetch_one(session).await
}

/// Locks the row of the worker with this process id as long as the session lives, so that it cannot renew its lease.
/// Returns whether it has a row.
pub(crate) async fn lock_worker(session: &mut PgConnection, pid: u32) -> sqlx::Result<bool> {
    sqlx::raw_sql("BEGIN").execute(&mut *session).await?;
    let lock = "SELECT id FROM apalis.workers WHERE id LIKE '%-' || $1 || '-%' FOR UPDATE";
    Ok(sqlx::query(lock).bind(pid.to_string()).fetch_optional(session).await?.is_some())
}

/// Adds waiting jobs of a kind, in steps of 50,000.
pub(crate) async fn add_jobs(session: &mut PgConnection, kind: &str, count: i64) -> sqlx::Result<()> {
    const STEP: i64 = 50_000;
    let insert = "INSERT INTO apalis.jobs (id, job_type, job, run_at)
                  SELECT '0' || upper(substr(md5($1 || n), 1, 25)), $1, '{}', now() FROM generate_series($2::bigint, $3::bigint) AS n";
    for first in (0..count).step_by(usize::try_from(STEP).unwrap_or(1)) {
        let last = (first + STEP).min(count) - 1;
        sqlx::query(insert).bind(kind).bind(first).bind(last).execute(&mut *session).await?;
    }
    Ok(())
}

/// How many transactions are not settled, and how many of their jobs are not done.
pub(crate) async fn unsettled(session: &mut PgConnection) -> sqlx::Result<i64> {
    let query = "SELECT (SELECT count(*) FROM transactions WHERE status = 'PROCESSING')
                      + (SELECT count(*) FROM apalis.jobs
                         WHERE job_type IN ('process_transaction', 'prove_tick', 'prove_task') AND status IN ('Pending', 'Running'))";
    sqlx::query_scalar(query).fetch_one(session).await
}

/// How many jobs of a kind wait or run.
pub(crate) async fn unfinished(session: &mut PgConnection, kind: &str) -> sqlx::Result<i64> {
    let query = "SELECT count(*) FROM apalis.jobs WHERE job_type = $1 AND status IN ('Pending', 'Running')";
    sqlx::query_scalar(query).bind(kind).fetch_one(session).await
}

/// How many jobs of a kind are dead letters.
pub(crate) async fn dead(session: &mut PgConnection, kind: &str) -> sqlx::Result<i64> {
    let query = "SELECT count(*) FROM apalis.jobs WHERE job_type = $1 AND status = 'Killed'";
    sqlx::query_scalar(query).bind(kind).fetch_one(session).await
}

/// Examples of what is not settled, for an error message.
pub(crate) async fn describe_unsettled(session: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    let query = "SELECT concat_ws(' ', t.transaction_id, t.status, 'job', j.status, 'attempts', j.attempts, 'by', j.lock_by,
                                  'due', j.run_at, j.errors -> -1 ->> 'error')
                 FROM transactions AS t LEFT JOIN apalis.jobs AS j ON convert_from(j.job, 'UTF8')::jsonb ->> 'id' = t.id::text
                 WHERE t.status = 'PROCESSING' LIMIT 5";
    sqlx::query_scalar(query).fetch_all(session).await
}

/// The state of the database at this moment, as [`final_state`] returns it. Ends the session.
pub(crate) async fn present_state(mut session: PgConnection, with_completions: bool) -> sqlx::Result<Vec<Event>> {
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut session).await?;
    let events = final_state(&mut session, with_completions).await?;
    session.close().await?;
    Ok(events)
}

/// The state at the end, as events: a row for each transaction, and what the triggers recorded, each in order.
pub(crate) async fn final_state(session: &mut PgConnection, with_completions: bool) -> sqlx::Result<Vec<Event>> {
    let rows = sqlx::query(
        r#"WITH settled AS (SELECT transaction_id, count(*)::integer AS times FROM prove.settlements GROUP BY 1),
                conflicts AS (SELECT transaction_id, count(*)::integer AS kept FROM webhook_conflicts GROUP BY 1),
                job AS (SELECT convert_from(job, 'UTF8')::jsonb ->> 'id' AS transaction, count(*)::integer AS jobs
                        FROM apalis.jobs WHERE job_type = 'process_transaction' GROUP BY 1)
           SELECT t.transaction_id, status, to_char(processed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                  coalesce(times, 0), coalesce(jobs, 0), coalesce(kept, 0)
           FROM transactions AS t LEFT JOIN settled USING (transaction_id) LEFT JOIN conflicts USING (transaction_id)
           LEFT JOIN job ON job.transaction = t.id::text"#,
    );
    let mut events = Vec::new();
    for row in rows.fetch_all(&mut *session).await? {
        let count = |column: usize| row.try_get::<i32, _>(column).map(i32::unsigned_abs);
        events.push(Event::Recorded {
            id: row.try_get(0)?,
            state: State { status: row.try_get(1)?, processed_at: row.try_get(2)? },
            settlements: count(3)?,
            jobs: count(4)?,
            conflicts: count(5)?,
        });
    }
    events.extend(renewals(session).await?);
    events.extend(changes(session, with_completions).await?);
    Ok(events)
}

async fn renewals(session: &mut PgConnection) -> sqlx::Result<Vec<Event>> {
    let query =
        "SELECT worker, (extract(epoch FROM at) * 1000000)::bigint, (extract(epoch FROM lease) * 1000000)::bigint
                 FROM prove.renewals ORDER BY at";
    let rows = sqlx::query(query).fetch_all(session).await?;
    let event =
        |row: PgRow| Ok(Event::Renewed { worker: row.try_get(0)?, at_us: row.try_get(1)?, lease_us: row.try_get(2)? });
    rows.into_iter().map(event).collect()
}

async fn changes(session: &mut PgConnection, with_completions: bool) -> sqlx::Result<Vec<Event>> {
    let query = "SELECT change, job, kind, run, role, coalesce(worker, ''), (extract(epoch FROM at) * 1000000)::bigint
                 FROM prove.changes WHERE change <> 'other' AND ($1 OR change <> 'completed') ORDER BY at";
    let mut events = Vec::new();
    for row in sqlx::query(query).bind(with_completions).fetch_all(session).await? {
        let change: String = row.try_get(0)?;
        let (job, run, at_us, worker) = (row.try_get(1)?, row.try_get(3)?, row.try_get(6)?, row.try_get(5)?);
        events.push(match change.as_str() {
            "completed" => Event::Completed { job, run, role: row.try_get(4)?, claimed_by: worker, at_us },
            "claimed" => Event::Claimed { job, kind: row.try_get(2)?, run, worker, at_us },
            "rescued" => Event::Rescued { job, worker, at_us },
            _ => Event::Retried { job, run, at_us },
        });
    }
    Ok(events)
}
