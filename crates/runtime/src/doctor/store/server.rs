//! The SQL of settings, clock, encoding, collation and replication slots.

use sqlx::{FromRow, Result};

use crate::{doctor::words, executor::StatementExecutor};

/// A setting of this session.
#[derive(FromRow)]
pub(crate) struct Setting {
    pub name: String,
    pub value: String,
}

/// Reads these settings.
pub(crate) async fn settings(executor: StatementExecutor<'_>, names: &[String]) -> Result<Vec<Setting>> {
    const SQL: &str = "SELECT name, current_setting(name) AS value FROM unnest($1::text[]) AS name";
    sqlx::query_as(SQL).bind(names).fetch_all(executor).await
}

/// Reads a setting that may be unknown to the server.
pub(crate) async fn custom_setting(executor: StatementExecutor<'_>, name: &str) -> Result<Option<String>> {
    sqlx::query_scalar("SELECT current_setting($1, true)").bind(name).fetch_one(executor).await
}

/// Reads the limit of a transaction in milliseconds, 0 for none; `None` before PostgreSQL 17.
pub(crate) async fn transaction_timeout(executor: StatementExecutor<'_>) -> Result<Option<i64>> {
    const SQL: &str = "SELECT setting::bigint FROM pg_settings WHERE name = 'transaction_timeout'";
    sqlx::query_scalar(SQL).fetch_optional(executor).await
}

/// A setting that a role or a database has.
#[derive(FromRow)]
pub(crate) struct RoleSetting {
    role: Option<String>,
    database: Option<String>,
    value: String,
}

impl RoleSetting {
    /// Whether the value means "off".
    pub(crate) fn is_off(&self) -> bool {
        ["off", "false", "no", "0"].contains(&self.value.as_str())
    }

    /// Whether the value means "on".
    pub(crate) fn is_on(&self) -> bool {
        ["on", "true", "yes", "1"].contains(&self.value.as_str())
    }

    /// For whom it holds.
    pub(crate) fn scope(&self) -> String {
        match (&self.role, &self.database) {
            (Some(role), Some(database)) => format!("for the role {role} in the database {database}"),
            (Some(role), None) => format!("for the role {role}"),
            (None, Some(database)) => format!("for the database {database}"),
            (None, None) => "for all roles".into(),
        }
    }

    /// The statement that removes it.
    pub(crate) fn reset(&self, setting: &str) -> String {
        match (&self.role, &self.database) {
            (Some(role), Some(database)) => {
                format!("ALTER ROLE {} IN DATABASE {} RESET {setting};", words::name(role), words::name(database))
            }
            (Some(role), None) => format!("ALTER ROLE {} RESET {setting};", words::name(role)),
            (None, Some(database)) => format!("ALTER DATABASE {} RESET {setting};", words::name(database)),
            (None, None) => format!("ALTER ROLE ALL RESET {setting};"),
        }
    }
}

/// Reads which roles and databases have this setting; only those that concern this database.
pub(crate) async fn role_settings(executor: StatementExecutor<'_>, setting: &str) -> Result<Vec<RoleSetting>> {
    const SQL: &str = "
        SELECT nullif(setrole, 0)::regrole::text AS role, datname::text AS database, lower(split_part(entry, '=', 2)) AS value
        FROM pg_db_role_setting CROSS JOIN unnest(setconfig) AS entry LEFT JOIN pg_database AS d ON d.oid = setdatabase
        WHERE split_part(entry, '=', 1) = $1 AND (setdatabase = 0 OR datname = current_database())
        ORDER BY setdatabase, setrole";
    sqlx::query_as(SQL).bind(setting).fetch_all(executor).await
}

/// Reads the clock as a Unix time.
pub(crate) async fn clock(executor: StatementExecutor<'_>) -> Result<f64> {
    sqlx::query_scalar("SELECT extract(epoch FROM clock_timestamp())::float8").fetch_one(executor).await
}

/// The database and its encoding.
#[derive(FromRow)]
pub(crate) struct EncodingRow {
    pub name: String,
    pub encoding: String,
}

/// Reads the database's encoding.
pub(crate) async fn encoding(executor: StatementExecutor<'_>) -> Result<EncodingRow> {
    const SQL: &str = "SELECT current_database()::text AS name, current_setting('server_encoding') AS encoding";
    sqlx::query_as(SQL).fetch_one(executor).await
}

/// The collation of the database.
#[derive(FromRow)]
pub(crate) struct CollationRow {
    pub database: String,
    pub name: String,
    /// The version when the database was created or last refreshed; `None` for a collation without versions.
    pub recorded: Option<String>,
    pub actual: Option<String>,
}

/// Reads the versions of the database's collation.
pub(crate) async fn collation(executor: StatementExecutor<'_>) -> Result<CollationRow> {
    const SQL: &str = "
        SELECT datname::text AS database, datcollate::text AS name, datcollversion AS recorded,
               pg_database_collation_actual_version(oid) AS actual
        FROM pg_database WHERE datname = current_database()";
    sqlx::query_as(SQL).fetch_one(executor).await
}

/// A replication slot.
#[derive(FromRow)]
pub(crate) struct SlotRow {
    pub name: String,
    pub active: bool,
    pub wal_status: Option<String>,
    pub kept_bytes: Option<f64>,
    /// The server's setting `max_slot_wal_keep_size`.
    pub keep_size: String,
}

/// Reads the replication slots.
pub(crate) async fn slots(executor: StatementExecutor<'_>) -> Result<Vec<SlotRow>> {
    const SQL: &str = "
        SELECT slot_name::text AS name, active, wal_status, current_setting('max_slot_wal_keep_size') AS keep_size,
               pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                               restart_lsn)::float8 AS kept_bytes
        FROM pg_replication_slots ORDER BY restart_lsn LIMIT 100";
    sqlx::query_as(SQL).fetch_all(executor).await
}
