//! A migration of a locked table: it is retried, blocks other statements only briefly, and logs the oldest transaction.

use std::time::{Duration, Instant};

use runtime::migrate;
use sqlx::PgPool;

use super::{execute, read_migrator, value};
use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    process::Process,
};

const SOON: Duration = Duration::from_secs(30);
/// A migration that changes the table `transactions`.
const TOUCHES_TRANSACTIONS: i64 = 20_261_121_090_230;
/// The migration before it.
const BEFORE: i64 = 20_261_121_090_220;
/// How long a migration may wait for a lock, and block all later statements.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// The statement time-out of Millrace's processes.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A database with the schema of an earlier release.
async fn earlier_release() -> (TestDatabase, PgPool) {
    let database = database::fresh().await;
    let pool = database.pool().await;
    read_migrator().await.undo(&pool, BEFORE).await.unwrap();
    assert!(migrate::check(&pool.clone().into()).await.unwrap_err().to_string().contains("not migrated"));
    (database, pool)
}

/// Opens a transaction that has read the table and stays open.
async fn open_reader(pool: &PgPool) -> sqlx::PgTransaction<'static> {
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("SET LOCAL application_name = 'a long report'").execute(&mut *transaction).await.unwrap();
    sqlx::query("SELECT count(*) FROM transactions").execute(&mut *transaction).await.unwrap();
    transaction
}

#[tokio::test]
async fn a_migration_of_a_locked_table_is_retried_and_blocks_only_briefly() {
    let (database, pool) = earlier_release().await;
    let report = open_reader(&pool).await;
    let url = [("DATABASE_URL", &*database.url), ("LOG_FORMAT", "json")];
    let mut migrating = Process::start(&["migrate", "--patience", "120"], &url);
    migrating.wait_for_line(r#"retry_after_s":0.5"#).await;
    // Runs statements one after the other during the second and third attempt, and longer until one has met an attempt.
    let (mut waits, begun) = (Vec::<Duration>::new(), Instant::now());
    let met = |waits: &[Duration]| waits.iter().filter(|wait| **wait > LOCK_TIMEOUT / 4).min().copied();
    while !migrating.log().contains(r#"retry_after_s":2"#) || met(&waits).is_none() || waits.len() <= 10 {
        let started = Instant::now();
        value(&pool, "SELECT count(*) FROM transactions").await;
        waits.push(started.elapsed());
        assert!(begun.elapsed() < SOON, "{} statements, {:?}: {}", waits.len(), met(&waits), migrating.log());
    }
    // A stall makes one wait longer. Without a time limit of the lock, each of them would be.
    let shortest = met(&waits).expect("a statement that met the migration");
    assert!(shortest < STATEMENT_TIMEOUT, "each such statement waited for {shortest:?} or longer");
    let log = migrating.log();
    let line = log.lines().find(|line| line.contains("retry_after_s")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (line["version"].as_i64(), line["level"].as_str()),
        (Some(TOUCHES_TRANSACTIONS), Some("warn")),
        "{line}"
    );
    let oldest = line["oldest_transaction"].as_str().unwrap_or_default();
    assert!(oldest.starts_with("a long report, process ") && oldest.contains("idle in transaction for"), "{line}");

    report.rollback().await.unwrap();
    assert!(migrating.wait_for_exit(SOON).await.success(), "{}", migrating.log());
    migrate::check(&pool.clone().into()).await.unwrap();
}

#[tokio::test]
async fn when_patience_ends_the_error_names_the_cause_and_nothing_is_applied() {
    let (database, pool) = earlier_release().await;
    let report = open_reader(&pool).await;
    let url = [("DATABASE_URL", &*database.url)];
    let mut migrating = Process::start(&["migrate", "--patience", "1"], &url);
    assert_eq!(migrating.wait_for_exit(SOON).await.code(), Some(1));
    let log = migrating.log();
    assert!(!log.contains("at line"), "no line number of PostgreSQL's source code: {log}");
    for text in ["20261121090230", "in use for", "lock timeout", "a long report, process", "again when that has ended"]
    {
        assert!(log.contains(text), "{text}: {log}");
    }
    report.rollback().await.unwrap();
    assert!(migrate::check(&pool.clone().into()).await.unwrap_err().to_string().contains("not migrated"));
    let mut again = Process::start(&["migrate", "--patience", "0"], &url);
    assert!(again.wait_for_exit(SOON).await.success(), "{}", again.log());
    migrate::check(&pool.clone().into()).await.unwrap();
}

#[tokio::test]
async fn a_failing_migration_is_not_retried() {
    let (database, pool) = earlier_release().await;
    // The migration drops this index, so it fails without it.
    execute(&pool, "DROP INDEX transactions_newest").await;
    let mut migrating = Process::start(&["migrate"], &[("DATABASE_URL", &*database.url)]);
    assert_eq!(migrating.wait_for_exit(SOON).await.code(), Some(1));
    let log = migrating.log();
    assert!(log.contains("transactions_newest") && log.contains("20261121090230"), "{log}");
    assert!(!log.contains("retrying") && !log.contains("again"), "{log}");
}

#[tokio::test]
async fn concurrent_migrations_take_turns_and_the_waiting_one_has_no_open_transaction() {
    let (database, pool) = earlier_release().await;
    let report = open_reader(&pool).await;
    let url = [("DATABASE_URL", &*database.url)];
    let mut first = Process::start(&["migrate", "--patience", "120"], &url);
    first.wait_for_line("found its tables in use; retrying").await;
    let mut second = Process::start(&["migrate"], &url);
    second.wait_for_line("another `migrate` is at work").await;
    // CREATE INDEX CONCURRENTLY waits for all older snapshots, so the waiting process must not hold one.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND application_name = 'millrace migrate' AND backend_xmin IS NULL AND state = 'idle'";
    eventually("the second one holds no snapshot", SOON, async || value(&pool, waiting).await != "0").await;
    assert!(second.is_running(), "{}", second.log());
    report.rollback().await.unwrap();
    for process in [&mut first, &mut second] {
        assert!(process.wait_for_exit(SOON).await.success(), "{}", process.log());
    }
    assert!(
        first.log().contains("migrations applied") && !second.log().contains("migrations applied"),
        "{}",
        second.log()
    );
    migrate::check(&pool.clone().into()).await.unwrap();
}
