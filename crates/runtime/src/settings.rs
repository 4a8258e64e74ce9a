//! The settings of a database session: one list, applied in three ways.
//!
//! - As start-up options ([`startup_options`]): PostgreSQL applies them before the first statement. They override
//!   `ALTER ROLE` and `ALTER DATABASE`.
//! - Again in the first statement of a session ([`apply`]), because some poolers drop start-up options without an error.
//! - Through a pooler in transaction mode, in the statement that begins each transaction ([`begin_statement`]).

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqlSafeStr, SqlStr, raw_sql};

use super::pooler::Pooler;

/// The longest that one of our statements may run. A longer one waits for a lock or a failing server, and is retried.
const STATEMENT_TIMEOUT: &str = "5s";
/// The longest that a transaction may be idle, so that an abandoned one does not hold its locks without end.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "15s";

/// The settings that our statements and guarantees need. They override the defaults of server, database and role.
pub(super) const SETTINGS: [(&str, &str); 12] = [
    // Our tables are in `public` and `apalis`. Statements name only the schema `apalis`.
    ("search_path", "public"),
    // A confirmed write survives a crash of the server.
    ("synchronous_commit", "on"),
    // Under a stricter default, concurrent writers of one row fail instead of waiting for each other.
    ("default_transaction_isolation", "read committed"),
    // Our statements are written for one plan, independent of the values in their arrays. Planned for its values, the
    // statement that finishes 500 of 100,000 jobs took 29.6 ms instead of 3.0 ms: it read the whole table, and compared
    // each row with each element.
    ("plan_cache_mode", "force_generic_plan"),
    // A session makes that plan once. A plan made while the tables are empty would read whole tables until the next
    // ANALYZE. At 400 webhooks a second, that read 39.5 million rows of `apalis.jobs` in the first 45 s.
    ("enable_seqscan", "off"),
    // Compilation takes longer than our statements run: an overview of the queues took 450 ms instead of 9 ms.
    ("jit", "off"),
    // A statement fails if a policy hides a row from it. Otherwise the row would be missing without an error.
    ("row_security", "off"),
    ("statement_timeout", STATEMENT_TIMEOUT),
    // A statement may wait for locks until its own time limit. A shorter limit would fail requests under load.
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT),
    // The pool decides how long an idle session lives.
    ("idle_session_timeout", "0"),
    ("TimeZone", "UTC"),
];

/// A start-up option whose presence shows that no pooler dropped the options.
pub(super) const MARKER: (&str, &str) = ("millrace.options", "arrived");

/// Returns whether a session can only read, because its server is a standby or a replaced primary.
const PROBE: &str = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool";

/// How long a session may take to respond to a check; after that it counts as dead.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// The oldest server version that supports our SQL and all settings, in libpq's numeric form.
pub(super) const OLDEST_SERVER: u32 = 150_000;

/// The start-up options of a new session. `limit` replaces the time limit of its statements.
pub(super) fn startup_options(limit: Option<Duration>) -> impl Iterator<Item = (&'static str, String)> {
    // The last one of a name counts.
    let settings = SETTINGS.into_iter().chain([MARKER]).map(|(name, value)| (name, value.to_owned()));
    settings.chain(limit.map(statement_timeout))
}

/// The setting of another time limit for statements, in milliseconds.
fn statement_timeout(limit: Duration) -> (&'static str, String) {
    ("statement_timeout", limit.as_millis().to_string())
}

/// All settings as statements of one command, `SET` or `SET LOCAL`.
fn set_statements(command: &str, limit: Option<Duration>) -> String {
    let settings = SETTINGS.into_iter().map(|(name, value)| (name, value.to_owned()));
    let settings = settings.chain(limit.map(statement_timeout));
    settings.map(|(name, value)| format!("{command} {name} = '{value}'; ")).collect()
}

/// The statement that begins a transaction with our settings. It deallocates prepared statements of other clients.
pub(super) fn begin_statement(limit: Option<Duration>) -> SqlStr {
    let settings = set_statements("SET LOCAL", limit);
    AssertSqlSafe(format!("BEGIN ISOLATION LEVEL READ COMMITTED; DEALLOCATE ALL; {settings}")).into_sql_str()
}

/// The statement that begins a transaction on a session that has our settings, with a time limit for each statement.
pub(super) fn limited_begin_statement(limit: Duration) -> SqlStr {
    let (name, value) = statement_timeout(limit);
    AssertSqlSafe(format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL {name} = '{value}'")).into_sql_str()
}

/// Applies our settings to a new session, in one round trip. Returns whether the session can only read.
///
/// # Errors
/// When the session is dead, or the server refuses a setting.
pub(super) async fn apply(session: &mut PgConnection, pooler: Pooler, limit: Option<Duration>) -> sqlx::Result<bool> {
    // The schema check refuses an old server, with an error that names its version.
    if session.server_version_num().is_some_and(|version| version < OLDEST_SERVER) {
        return Ok(false);
    }
    if pooler == Pooler::Transaction {
        return is_read_only(session).await;
    }
    let (name, value) = MARKER;
    let statements = format!(
        "SELECT current_setting('{name}', true) IS NOT DISTINCT FROM '{value}'; {}{PROBE}",
        set_statements("SET", limit)
    );
    let rows = session.fetch_all(raw_sql(AssertSqlSafe(statements))).await?;
    let column = |row: Option<&sqlx::postgres::PgRow>| row.map_or(Err(sqlx::Error::RowNotFound), |row| row.try_get(0));
    if !column(rows.first())? {
        warn_of_dropped_options();
    }
    column(rows.last())
}

/// Logs a warning about the pooler, once in the life of the process.
fn warn_of_dropped_options() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "a pooler drops the start-up options of our sessions, so a statement sets them instead; this works only with \
             session pooling: for a PgBouncer in transaction mode, set DATABASE_POOLER=transaction"
        );
    }
}

/// Returns whether a session can only read.
///
/// # Errors
/// When the session is dead. A session that does not respond within 1 s counts as dead.
pub(super) async fn probe(session: &mut PgConnection) -> sqlx::Result<bool> {
    with_check_timeout(is_read_only(session)).await
}

/// Checks that a session responds.
///
/// # Errors
/// When the session is dead. A session that does not respond within 1 s counts as dead.
pub(super) async fn ping(session: &mut PgConnection) -> sqlx::Result<()> {
    with_check_timeout(session.ping()).await
}

async fn with_check_timeout<T>(response: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let timed_out = |_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    tokio::time::timeout(CHECK_TIMEOUT, response).await.unwrap_or_else(timed_out)
}

async fn is_read_only(session: &mut PgConnection) -> sqlx::Result<bool> {
    session.fetch_one(raw_sql(PROBE)).await?.try_get(0)
}
