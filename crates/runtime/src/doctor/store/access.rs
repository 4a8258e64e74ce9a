//! The SQL of what this process may do.

use sqlx::{FromRow, Result};

use crate::executor::StatementExecutor;

/// The server and this session.
#[derive(FromRow)]
pub(crate) struct ServerRow {
    pub version: String,
    pub database: String,
    pub role: String,
    pub is_standby: bool,
    pub is_read_only: bool,
}

/// Reads what the server is.
pub(crate) async fn server(executor: StatementExecutor<'_>) -> Result<ServerRow> {
    const SQL: &str = "
        SELECT current_setting('server_version') AS version, current_database()::text AS database, current_user::text AS role,
               pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only')::bool AS is_read_only";
    sqlx::query_as(SQL).fetch_one(executor).await
}

/// What this role lacks.
#[derive(FromRow)]
pub(crate) struct RoleRow {
    pub name: String,
    /// Whether it sees the statements of other roles.
    pub sees_all: bool,
    /// Schemas that it may not use.
    pub schemas: Vec<String>,
    /// Tables that it may not read or write.
    pub tables: Vec<String>,
    /// Tables whose rows a policy hides from it.
    pub hiding_rows: Vec<String>,
}

/// Reads what this role lacks to use these tables.
pub(crate) async fn role(executor: StatementExecutor<'_>, tables: &[String]) -> Result<RoleRow> {
    const SQL: &str = "
        WITH ours AS (
            SELECT c.oid, format('%I.%I', nspname, relname) AS name, n.oid AS schema
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
            WHERE format('%I.%I', nspname, relname) = ANY($1)
        )
        SELECT current_user::text AS name, pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
               ARRAY(SELECT DISTINCT schema::regnamespace::text FROM ours WHERE NOT has_schema_privilege(schema, 'USAGE')) AS schemas,
               ARRAY(SELECT name FROM ours
                     WHERE NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
                                AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
                     ORDER BY name) AS tables,
               ARRAY(SELECT name FROM ours WHERE row_security_active(oid) ORDER BY name) AS hiding_rows";
    sqlx::query_as(SQL).bind(tables).fetch_one(executor).await
}

/// Sends a notification.
pub(crate) async fn notify(executor: StatementExecutor<'_>, channel: &str, payload: &str) -> Result<()> {
    sqlx::query("SELECT pg_notify($1, $2)").bind(channel).bind(payload).execute(executor).await?;
    Ok(())
}

/// Reads which share of the queue of notifications is used.
pub(crate) async fn notification_queue(executor: StatementExecutor<'_>) -> Result<f64> {
    sqlx::query_scalar("SELECT pg_notification_queue_usage()").fetch_one(executor).await
}
