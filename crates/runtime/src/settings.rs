//! The settings of a session: one list, for every way in which a session gets them.
//!
//! - As start-up options ([`options`]): PostgreSQL takes them before the first statement, and they win over what
//!   `ALTER ROLE` and `ALTER DATABASE` set.
//! - Once more as the first statement of a session ([`open`]): some poolers drop start-up options without an error.
//! - Through a pooler in transaction mode, in the statement that begins each transaction ([`begin`]).

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqlSafeStr, SqlStr, raw_sql};

use super::pooler::Pooler;

/// No statement of ours needs longer; one that does is stuck behind a lock or a dying server, and is retried.
const STATEMENT_TIMEOUT: &str = "5s";
/// A transaction that its client forgot must not hold locks without end.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "15s";

/// What our statements and our promises need, whatever the defaults of the server, the database or the role are.
const SETTINGS: [(&str, &str); 12] = [
    // Our tables are in `public` and `apalis`; statements name the second only.
    ("search_path", "public"),
    // An acknowledged write survives a crash of the server.
    ("synchronous_commit", "on"),
    // Under a stricter default, concurrent writers of one row fail instead of waiting for each other.
    ("default_transaction_isolation", "read committed"),
    // Our statements are written for one plan, whatever their arrays hold. Planned for its values, the one that
    // finishes 500 of 100,000 jobs read the whole table and compared each with each: 29.6 ms instead of 3.0.
    ("plan_cache_mode", "force_generic_plan"),
    // A session makes that plan once. Made while the tables are empty, it would read whole tables until the next
    // ANALYZE: 39.5 million rows of `apalis.jobs` in the first 45 s at 400 webhooks a second.
    ("enable_seqscan", "off"),
    // Compiling takes longer than any statement of ours: an overview of the queues 450 ms instead of 9.
    ("jit", "off"),
    // A row that a policy hides makes a statement fail; otherwise it would be missing without an error.
    ("row_security", "off"),
    ("statement_timeout", STATEMENT_TIMEOUT),
    // A statement waits for locks as long as it may run; a shorter default would fail requests under load.
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT),
    // The pool decides how long an idle session lives.
    ("idle_session_timeout", "0"),
    ("TimeZone", "UTC"),
];

/// Tells a session whose start-up options arrived from one whose options were dropped on the way.
const MARK: (&str, &str) = ("millrace.options", "arrived");

/// Whether a session can only read: its server is a standby, or a primary that was replaced.
const PROBE: &str = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool";

/// A session that has not replied by then is taken for dead.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// The first server version, in libpq's form, that knows our SQL and all of the settings.
pub(super) const OLDEST_SERVER: u32 = 150_000;

/// What a session asks for when it begins.
pub(super) fn options() -> impl Iterator<Item = (&'static str, &'static str)> {
    SETTINGS.into_iter().chain([MARK])
}

fn all(command: &str) -> String {
    SETTINGS.iter().map(|(name, value)| format!("{command} {name} = '{value}'; ")).collect()
}

/// Begins a transaction that has our settings, and forgets what other clients prepared.
pub(super) fn begin() -> SqlStr {
    AssertSqlSafe(format!("BEGIN ISOLATION LEVEL READ COMMITTED; DEALLOCATE ALL; {}", all("SET LOCAL"))).into_sql_str()
}

/// Gives a new session our settings, in one round trip; returns whether it can only read.
///
/// # Errors
/// The session cannot be used.
pub(super) async fn open(session: &mut PgConnection, pooler: Pooler) -> sqlx::Result<bool> {
    // The schema check names the version and refuses it.
    if session.server_version_num().is_some_and(|version| version < OLDEST_SERVER) {
        return Ok(false);
    }
    if pooler == Pooler::Transaction {
        return is_read_only(session, PROBE.into_sql_str()).await;
    }
    let (name, value) = MARK;
    let statements =
        format!("SELECT current_setting('{name}', true) IS NOT DISTINCT FROM '{value}'; {}{PROBE}", all("SET"));
    let rows = session.fetch_all(raw_sql(AssertSqlSafe(statements))).await?;
    let column = |row: Option<&sqlx::postgres::PgRow>| row.map_or(Err(sqlx::Error::RowNotFound), |row| row.try_get(0));
    if !column(rows.first())? {
        warn_once();
    }
    column(rows.last())
}

fn warn_once() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "a pooler drops the start-up options of our sessions; they are set by a statement instead. This is right \
             for session pooling only: for a PgBouncer in transaction mode, set DATABASE_POOLER=transaction"
        );
    }
}

/// Whether a session can only read; one that does not reply is dead.
///
/// # Errors
/// The session is dead.
pub(super) async fn probe(session: &mut PgConnection) -> sqlx::Result<bool> {
    in_time(is_read_only(session, PROBE.into_sql_str())).await
}

/// Makes sure that a session replies.
///
/// # Errors
/// The session is dead.
pub(super) async fn ping(session: &mut PgConnection) -> sqlx::Result<()> {
    in_time(session.ping()).await
}

async fn in_time<T>(reply: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let silent = |_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    tokio::time::timeout(REPLY_TIMEOUT, reply).await.unwrap_or_else(silent)
}

async fn is_read_only(session: &mut PgConnection, statements: SqlStr) -> sqlx::Result<bool> {
    session.fetch_one(raw_sql(statements)).await?.try_get(0)
}
