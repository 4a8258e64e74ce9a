//! A process and a database that do not fit together.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::{SOON, run};
use crate::harness::{
    database,
    process::{Api, Process, worker},
};

#[tokio::test]
async fn an_unmigrated_database_is_refused_until_it_is_migrated() {
    let database = database::fresh().await;
    let url = [("DATABASE_URL", &*database.url)];
    let pool = database.pool().await;
    for statement in ["DROP SCHEMA apalis CASCADE", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"] {
        sqlx::query(AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    }
    for command in ["api", "worker"] {
        let (succeeded, log) = run(&[command], &[url[0], ("PORT", "0")]).await;
        assert!(!succeeded && log.contains("not migrated") && log.contains("millrace migrate"), "{command}: {log}");
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'apalis')";
    assert_eq!(sqlx::query_scalar::<_, i64>(tables).fetch_one(&pool).await.unwrap(), 0, "nothing migrates by itself");

    let mut migrating: Vec<_> = (0..3).map(|_| Process::start(&["migrate"], &url)).collect();
    for process in &mut migrating {
        assert!(process.ended(SOON).await.success(), "at once: {}", process.log());
    }
    let (succeeded, log) = run(&["migrate"], &url).await;
    assert!(succeeded, "again: {log}");
    drop((Api::start(&database.url, &[]).await, worker(&database.url, &[]).await));
}

#[tokio::test]
async fn a_database_of_another_program_version_is_refused() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let find = "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables WHERE tablename LIKE '%sqlx_migrations%'";
    let ledgers: Vec<String> = sqlx::query_scalar(find).fetch_all(&pool).await.unwrap();
    assert!(!ledgers.is_empty());
    for ledger in ledgers {
        let newer = format!(
            "INSERT INTO {ledger} (version, description, success, checksum, execution_time)
             VALUES (20991231000000, 'from the future', true, '', 0)"
        );
        let older = format!("DELETE FROM {ledger} WHERE version = 20991231000000");
        let changed = format!("UPDATE {ledger} SET checksum = checksum || '\\x00'::bytea");
        for (case, statement, text) in
            [("newer", newer, "newer than this program"), ("changed", format!("{older}; {changed}"), "has changed")]
        {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&pool).await.unwrap();
            for command in ["api", "worker"] {
                let (succeeded, log) = run(&[command], &[("DATABASE_URL", &database.url), ("PORT", "0")]).await;
                assert!(!succeeded && log.contains(text), "{case} {ledger}, {command}: {log}");
            }
            let (succeeded, log) = run(&["migrate"], &[("DATABASE_URL", &database.url)]).await;
            assert!(!succeeded && log.contains("migration"), "{case} {ledger}, migrate: {log}");
        }
        let restored = format!("UPDATE {ledger} SET checksum = substring(checksum FROM 1 FOR length(checksum) - 1)");
        sqlx::raw_sql(AssertSqlSafe(restored)).execute(&pool).await.unwrap();
    }
    drop(Api::start(&database.url, &[]).await);
}

#[tokio::test]
async fn a_database_that_comes_later_is_waited_for_and_a_stop_is_heard_meanwhile() {
    // Nobody listens there; not a refusal, since a database may well start after us.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://me:hunter2@127.0.0.1:{port}/x");
    for command in ["api", "worker"] {
        let variables = [("DATABASE_URL", &*url), ("PORT", "0"), ("LOG_FORMAT", "json")];
        let mut process = Process::start(&[command], &variables);
        process.printed("waiting for the database").await;
        process.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(process.ended(Duration::from_secs(10)).await.success(), "{}", process.log());
        assert!(!process.log().contains("hunter2"), "{}", process.log());
    }
}
