//! The SQL of sizes, dead rows and transaction ids.

use sqlx::{FromRow, Result};

use crate::executor::StatementExecutor;

/// Reads the size of the database.
pub(crate) async fn database_bytes(executor: StatementExecutor<'_>) -> Result<f64> {
    sqlx::query_scalar("SELECT pg_database_size(current_database())::float8").fetch_one(executor).await
}

/// The size of a table with its indexes.
#[derive(FromRow)]
pub(crate) struct SizeRow {
    pub name: String,
    pub bytes: f64,
    /// As of the last ANALYZE; negative before the first.
    pub rows: f64,
}

/// Reads the sizes of these tables. It waits for a table that another session has locked exclusively.
pub(crate) async fn sizes(executor: StatementExecutor<'_>, tables: &[String]) -> Result<Vec<SizeRow>> {
    const SQL: &str = "
        SELECT format('%I.%I', nspname, relname) AS name, pg_total_relation_size(c.oid)::float8 AS bytes,
               reltuples::float8 AS rows
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
        WHERE format('%I.%I', nspname, relname) = ANY($1)";
    sqlx::query_as(SQL).bind(tables).fetch_all(executor).await
}

/// Autovacuum of the server.
#[derive(FromRow)]
pub(crate) struct AutovacuumRow {
    pub is_on: bool,
    /// Whether dead rows are counted; without counts nothing is vacuumed.
    pub counts: bool,
    pub workers: String,
    pub naptime: String,
}

/// Reads the settings of autovacuum.
pub(crate) async fn autovacuum(executor: StatementExecutor<'_>) -> Result<AutovacuumRow> {
    const SQL: &str = "
        SELECT current_setting('autovacuum')::bool AS is_on, current_setting('track_counts')::bool AS counts,
               current_setting('autovacuum_max_workers') AS workers, current_setting('autovacuum_naptime') AS naptime";
    sqlx::query_as(SQL).fetch_one(executor).await
}

/// The dead rows of a table.
#[derive(FromRow)]
pub(crate) struct VacuumRow {
    pub name: String,
    pub live: f64,
    pub dead: f64,
    /// The dead rows from which autovacuum begins.
    pub threshold: f64,
    pub is_enabled: bool,
    /// Seconds since the last vacuum.
    pub vacuumed_ago: Option<f64>,
}

/// Reads the dead rows of these tables, with the settings of each.
pub(crate) async fn vacuum(executor: StatementExecutor<'_>, tables: &[String]) -> Result<Vec<VacuumRow>> {
    const SQL: &str = "
        SELECT format('%I.%I', nspname, c.relname) AS name, coalesce(n_live_tup, 0)::float8 AS live, coalesce(n_dead_tup, 0)::float8 AS dead,
               coalesce(own.threshold, current_setting('autovacuum_vacuum_threshold')::float8)
                   + coalesce(own.scale, current_setting('autovacuum_vacuum_scale_factor')::float8) * greatest(reltuples, 0) AS threshold,
               coalesce(own.enabled, true) AS is_enabled,
               extract(epoch FROM clock_timestamp() - greatest(last_vacuum, last_autovacuum))::float8 AS vacuumed_ago
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
        CROSS JOIN LATERAL (
            SELECT max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_threshold')::float8 AS threshold,
                   max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_scale_factor')::float8 AS scale,
                   max(option_value) FILTER (WHERE option_name = 'autovacuum_enabled')::bool AS enabled
            FROM pg_options_to_table(reloptions)
        ) AS own
        WHERE format('%I.%I', nspname, c.relname) = ANY($1)";
    sqlx::query_as(SQL).bind(tables).fetch_all(executor).await
}

/// The ages of the oldest ids.
#[derive(FromRow)]
pub(crate) struct AgesRow {
    pub transactions: f64,
    pub multixacts: f64,
    /// The ages from which autovacuum freezes rows.
    pub freeze_at: f64,
    pub freeze_multixacts_at: f64,
    pub oldest_table: String,
}

/// Reads the ages of the oldest ids of this database.
pub(crate) async fn ages(executor: StatementExecutor<'_>) -> Result<AgesRow> {
    const SQL: &str = "
        SELECT age(datfrozenxid)::float8 AS transactions, mxid_age(datminmxid)::float8 AS multixacts,
               current_setting('autovacuum_freeze_max_age')::float8 AS freeze_at,
               current_setting('autovacuum_multixact_freeze_max_age')::float8 AS freeze_multixacts_at,
               (SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'm', 't')
                ORDER BY age(relfrozenxid) DESC LIMIT 1) AS oldest_table
        FROM pg_database WHERE datname = current_database()";
    sqlx::query_as(SQL).fetch_one(executor).await
}
