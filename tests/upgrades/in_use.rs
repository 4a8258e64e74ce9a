//! A migration whose table somebody uses: it is tried again, nobody queues behind it for long, and it says who it is.

use std::time::{Duration, Instant};

use jobs::boot::migrate;
use sqlx::PgPool;

use super::{execute, ours, value};
use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    process::Process,
};

const SOON: Duration = Duration::from_secs(30);
/// It changes the table of transactions, which lives.
const TOUCHES_TRANSACTIONS: i64 = 20_261_121_090_230;
const BEFORE: i64 = 20_261_121_090_220;
/// How long a migration may wait for a lock, with everybody behind it; the rest is the machine's.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// What a statement of ours may take at most.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A database as an earlier release left it.
async fn earlier() -> (TestDatabase, PgPool) {
    let database = database::fresh().await;
    let pool = database.pool().await;
    ours().await.undo(&pool, BEFORE).await.unwrap();
    assert!(migrate::check(&pool).await.unwrap_err().to_string().contains("not migrated"));
    (database, pool)
}

/// Somebody's transaction that has read a table and does not end.
async fn reader(pool: &PgPool) -> sqlx::PgTransaction<'static> {
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("SET LOCAL application_name = 'a long report'").execute(&mut *transaction).await.unwrap();
    sqlx::query("SELECT count(*) FROM transactions").execute(&mut *transaction).await.unwrap();
    transaction
}

#[tokio::test]
async fn a_table_in_use_is_waited_for_and_nobody_queues_for_long() {
    let (database, pool) = earlier().await;
    let report = reader(&pool).await;
    let url = [("DATABASE_URL", &*database.url), ("LOG_FORMAT", "json")];
    let mut migrating = Process::start(&["migrate", "--patience", "120"], &url);
    migrating.wait_for_line(r#"again_in_seconds":0.5"#).await;
    // Somebody whose statements come one after the other, while it is tried a second and a third time.
    let (mut longest, mut served) = (Duration::ZERO, 0);
    let begun = Instant::now();
    while !migrating.log().contains(r#"again_in_seconds":2"#) {
        let asked = Instant::now();
        value(&pool, "SELECT count(*) FROM transactions").await;
        longest = longest.max(asked.elapsed());
        served += 1;
        assert!(begun.elapsed() < SOON, "{}", migrating.log());
    }
    assert!(longest < STATEMENT_TIMEOUT, "somebody waited for {longest:?}");
    assert!(longest > LOCK_TIMEOUT / 4, "nobody met the migration: this test no longer tests anything ({longest:?})");
    assert!(served > 10, "only {served} were served in {:?}", begun.elapsed());
    let log = migrating.log();
    let line = log.lines().find(|line| line.contains("again_in_seconds")).unwrap();
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
    migrate::check(&pool).await.unwrap();
}

#[tokio::test]
async fn patience_ends_with_what_to_do_and_nothing_half_done() {
    let (database, pool) = earlier().await;
    let report = reader(&pool).await;
    let url = [("DATABASE_URL", &*database.url)];
    let mut migrating = Process::start(&["migrate", "--patience", "1"], &url);
    assert_eq!(migrating.wait_for_exit(SOON).await.code(), Some(1));
    let log = migrating.log();
    for text in ["20261121090230", "in use for", "lock timeout", "a long report, process", "again when that has ended"]
    {
        assert!(log.contains(text), "{text}: {log}");
    }
    report.rollback().await.unwrap();
    assert!(migrate::check(&pool).await.unwrap_err().to_string().contains("not migrated"));
    let mut again = Process::start(&["migrate", "--patience", "0"], &url);
    assert!(again.wait_for_exit(SOON).await.success(), "{}", again.log());
    migrate::check(&pool).await.unwrap();
}

#[tokio::test]
async fn a_migration_that_fails_is_not_tried_again() {
    let (database, pool) = earlier().await;
    // What it removes is gone.
    execute(&pool, "DROP INDEX transactions_newest").await;
    let mut migrating = Process::start(&["migrate"], &[("DATABASE_URL", &*database.url)]);
    assert_eq!(migrating.wait_for_exit(SOON).await.code(), Some(1));
    let log = migrating.log();
    assert!(log.contains("transactions_newest") && log.contains("20261121090230"), "{log}");
    assert!(!log.contains("again"), "{log}");
}

#[tokio::test]
async fn two_take_turns_and_the_second_keeps_no_transaction_open() {
    let (database, pool) = earlier().await;
    let report = reader(&pool).await;
    let url = [("DATABASE_URL", &*database.url)];
    let mut first = Process::start(&["migrate", "--patience", "120"], &url);
    first.wait_for_line("tried again").await;
    let mut second = Process::start(&["migrate"], &url);
    second.wait_for_line("another `migrate` is at work").await;
    // What an index made CONCURRENTLY waits for: the snapshots of that moment, which must all end.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND application_name = 'millrace migrate' AND backend_xmin IS NULL AND state = 'idle'";
    eventually("the second one holds nothing", SOON, async || value(&pool, waiting).await != "0").await;
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
    migrate::check(&pool).await.unwrap();
}
