//! Tests of the harness: databases are migrated, isolated from each other, and removed after their test.

use super::{cluster, database, eventually};
use sqlx::{Connection, PgConnection};
use std::time::Duration;

#[tokio::test]
async fn two_tests_do_not_see_each_other() {
    let (one, other) = (database::fresh().await, database::fresh().await);
    let (one, other) = (one.pool().await, other.pool().await);
    sqlx::query("CREATE TABLE mine (x int)").execute(&one).await.unwrap();
    assert!(sqlx::query("SELECT FROM mine").execute(&other).await.is_err(), "a table of another test is visible");
    let jobs: i64 = sqlx::query_scalar("SELECT count(*) FROM apalis.jobs").fetch_one(&other).await.unwrap();
    assert_eq!(jobs, 0, "the schema exists and is empty");
}

#[tokio::test]
async fn a_database_is_removed_after_its_test() {
    let database = database::fresh().await;
    let (name, pool) = (database.name.clone(), database.pool().await);
    sqlx::query("SELECT 1").execute(&pool).await.unwrap();
    // The pool is still connected. That must not prevent the removal.
    drop(database);
    wait_until_removed(&name).await;
}

#[tokio::test]
async fn a_database_of_a_dead_process_is_removed() {
    // A database of a killed run: a process with this id runs, but started at another time.
    let mut postgres = PgConnection::connect(&cluster::server().await.url("postgres")).await.unwrap();
    let name = format!("test_{}_1_0", std::process::id());
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name} STRATEGY file_copy"));
    sqlx::query(create).execute(&mut postgres).await.unwrap();
    // The janitor of another process may remove it instead.
    let removed = async || {
        database::remove_orphans_now().await;
        !exists(&mut postgres, &name).await
    };
    eventually("the janitor has removed it", Duration::from_secs(10), removed).await;
}

async fn wait_until_removed(name: &str) {
    let url = cluster::server().await.url("postgres");
    let mut postgres = PgConnection::connect(&url).await.unwrap();
    let what = format!("{name} is removed");
    // Those of other tests are removed first, one after the other.
    eventually(&what, Duration::from_secs(60), async || !exists(&mut postgres, name).await).await;
}

async fn exists(postgres: &mut PgConnection, name: &str) -> bool {
    let query = sqlx::query("SELECT FROM pg_database WHERE datname = $1").bind(name);
    query.fetch_optional(postgres).await.unwrap().is_some()
}
