//! The SQL of what other sessions do.

use sqlx::{FromRow, Result};

use crate::executor::StatementExecutor;

/// A snapshot that keeps dead rows.
#[derive(FromRow)]
pub(crate) struct SnapshotRow {
    /// `session`, `prepared`, `slot` or `standby`.
    pub kind: String,
    /// The pid, the name of the transaction, or the name of the slot.
    pub id: String,
    /// The application or the role.
    pub who: String,
    pub query: Option<String>,
    /// Its age; `None` where only the age in transactions is known.
    pub seconds: Option<f64>,
    pub transactions: i64,
}

/// Reads the snapshots of other sessions of this database (not of an examination), prepared transactions, slots and standbys, oldest first.
pub(crate) async fn snapshots(executor: StatementExecutor<'_>) -> Result<Vec<SnapshotRow>> {
    const SQL: &str = "
        SELECT 'session' AS kind, pid::text AS id, coalesce(nullif(application_name, ''), usename, 'an unnamed program')::text AS who,
               left(query, 1000) AS query, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds,
               coalesce(age(backend_xmin), age(backend_xid))::bigint AS transactions
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
          AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND xact_start IS NOT NULL
          AND application_name NOT LIKE 'millrace doctor%'
        UNION ALL
        SELECT 'prepared', gid, owner::text, NULL, extract(epoch FROM clock_timestamp() - prepared)::float8, age(transaction)::bigint
        FROM pg_prepared_xacts WHERE database = current_database()
        UNION ALL
        SELECT 'slot', slot_name::text, coalesce(plugin::text, 'physical'), NULL, NULL, greatest(age(xmin), age(catalog_xmin))::bigint
        FROM pg_replication_slots WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
        UNION ALL
        SELECT 'standby', pid::text, coalesce(nullif(application_name, ''), client_addr::text, 'a standby'), NULL, NULL, age(backend_xmin)::bigint
        FROM pg_stat_replication WHERE backend_xmin IS NOT NULL
        ORDER BY seconds DESC NULLS LAST, transactions DESC LIMIT 100";
    sqlx::query_as(SQL).fetch_all(executor).await
}

/// Counts the client sessions of this server whose statements the role may not see.
pub(crate) async fn hidden_sessions(executor: StatementExecutor<'_>) -> Result<i64> {
    const SQL: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE query = '<insufficient privilege>' AND datname IS NOT NULL";
    sqlx::query_scalar(SQL).fetch_one(executor).await
}

/// Open sessions and their limits; a limit is -1 if there is no such limit.
#[derive(FromRow)]
pub(crate) struct ConnectionsRow {
    pub database: String,
    pub role: String,
    pub on_server: i64,
    pub server_limit: i64,
    pub in_database: i64,
    pub database_limit: i64,
    pub of_role: i64,
    pub role_limit: i64,
}

/// Counts sessions. Those that are reserved for superusers do not count as available.
pub(crate) async fn connections(executor: StatementExecutor<'_>) -> Result<ConnectionsRow> {
    const SQL: &str = "
        SELECT current_database()::text AS database, current_user::text AS role,
               count(*) AS on_server,
               current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
                   - coalesce(current_setting('reserved_connections', true)::bigint, 0) AS server_limit,
               count(*) FILTER (WHERE datname = current_database()) AS in_database,
               (SELECT datconnlimit FROM pg_database WHERE datname = current_database())::bigint AS database_limit,
               count(*) FILTER (WHERE usename = current_user) AS of_role,
               (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user)::bigint AS role_limit
        FROM pg_stat_activity WHERE datname IS NOT NULL";
    sqlx::query_as(SQL).fetch_one(executor).await
}

/// An application and the number of its sessions.
#[derive(FromRow)]
pub(crate) struct ApplicationRow {
    pub name: String,
    pub sessions: i64,
}

/// Counts the sessions of each application, most first.
pub(crate) async fn applications(executor: StatementExecutor<'_>) -> Result<Vec<ApplicationRow>> {
    const SQL: &str = "
        SELECT coalesce(nullif(application_name, ''), 'unnamed') AS name, count(*) AS sessions
        FROM pg_stat_activity WHERE datname IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20";
    sqlx::query_as(SQL).fetch_all(executor).await
}

/// A statement that waits for a lock, and the session that holds it.
#[derive(FromRow)]
pub(crate) struct LockWaitRow {
    pub pid: i32,
    pub waiter: String,
    pub seconds: f64,
    pub blocker_pid: i32,
    pub blocker: String,
    pub blocker_state: String,
    pub blocker_query: String,
}

/// Reads which statements of this database wait for locks, longest wait first.
pub(crate) async fn lock_waits(executor: StatementExecutor<'_>) -> Result<Vec<LockWaitRow>> {
    const SQL: &str = "
        SELECT waiting.pid, coalesce(nullif(waiting.application_name, ''), 'an unnamed program') AS waiter,
               extract(epoch FROM clock_timestamp() - wait.waitstart)::float8 AS seconds, blocking.pid AS blocker_pid,
               coalesce(nullif(holder.application_name, ''), 'an unnamed program') AS blocker,
               coalesce(holder.state, 'a prepared transaction') AS blocker_state, coalesce(left(holder.query, 1000), '') AS blocker_query
        FROM pg_locks AS wait JOIN pg_stat_activity AS waiting ON waiting.pid = wait.pid
        CROSS JOIN LATERAL (SELECT pid FROM unnest(pg_blocking_pids(wait.pid)) AS pid LIMIT 1) AS blocking
        LEFT JOIN pg_stat_activity AS holder ON holder.pid = blocking.pid
        WHERE NOT wait.granted AND wait.waitstart IS NOT NULL AND waiting.datname = current_database()
        ORDER BY wait.waitstart LIMIT 50";
    sqlx::query_as(SQL).fetch_all(executor).await
}
