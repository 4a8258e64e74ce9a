//! Every migration goes down and up again on a filled database, and results in exactly the expected schema.

use std::{collections::BTreeMap, time::Duration};

use runtime::migrate;

use super::{
    empty_database, execute,
    fill::fill,
    read_migrator,
    schema::{Contents, assert_same, contents, schema},
    value, versions,
};
use crate::harness::{
    database,
    process::{Api, start_worker},
};

/// Columns whose data a down migration cannot keep; its file says so. The indexes and keys of apalis are stricter than
/// Millrace's, and the previous release computes other words.
const CHANGED_ON_THE_WAY_DOWN: [(i64, &str, &str); 5] = [
    (20_261_121_090_000, "apalis.jobs", "idempotency_key"),
    (20_261_121_090_000, "apalis.jobs", "lock_by"),
    (20_261_128_160_200, "item_documents", "words"),
    (20_261_128_180_100, "replays", "state"),
    (20_261_128_180_100, "replays", "ended_at"),
];

/// Columns whose data a migration changes on purpose, down and up.
const CHANGED_BOTH_WAYS: [(i64, &str, &str); 1] = [(20_261_128_150_000, "prices", "bucket")];

/// Fails if the contents of a column that exists before and after differ, unless the column is listed as changed.
fn assert_contents_kept(changed: &[(i64, &str, &str)], version: i64, before: &Contents, after: &Contents, case: &str) {
    for (column, found) in after {
        let (table, name) = (&*column.0, &*column.1);
        let excused = changed.contains(&(version, table, name));
        if let Some(was) = before.get(column).filter(|_| !excused) {
            assert_eq!(found, was, "{case}: the contents of {table}.{name} have changed");
        }
    }
}

#[tokio::test]
async fn each_migration_goes_down_and_up_on_a_filled_database() {
    let migrator = read_migrator().await;
    let versions = versions().await;
    // The schema after each migration on an empty database.
    let (_database, pool) = empty_database().await;
    let mut expected = BTreeMap::new();
    for version in [0].iter().chain(&versions) {
        migrate::run_to(&pool.clone().into(), Some(*version), Duration::ZERO).await.unwrap();
        expected.insert(*version, schema(&pool).await);
    }

    let down = [&CHANGED_ON_THE_WAY_DOWN[..], &CHANGED_BOTH_WAYS].concat();
    let database = database::fresh().await;
    let pool = database.pool().await;
    fill(&database, &pool).await;
    assert_same(&schema(&pool).await, &expected[versions.last().unwrap()], "all at once and one by one");
    for pair in [0].iter().chain(&versions).collect::<Vec<_>>().windows(2).rev() {
        let (before, version) = (*pair[0], *pair[1]);
        let full = contents(&pool).await;
        migrator.undo(&pool, before).await.unwrap_or_else(|error| panic!("{version} down: {error}"));
        assert_same(&schema(&pool).await, &expected[&before], &format!("{version} down"));
        let lower = contents(&pool).await;
        assert_contents_kept(&down, version, &full, &lower, &format!("{version} down"));
        migrate::run_to(&pool.clone().into(), Some(version), Duration::ZERO)
            .await
            .unwrap_or_else(|error| panic!("{version} up: {error}"));
        assert_same(&schema(&pool).await, &expected[&version], &format!("{version} up again"));
        let upper = contents(&pool).await;
        assert_contents_kept(&CHANGED_BOTH_WAYS, version, &lower, &upper, &format!("{version} up again"));
        migrator.undo(&pool, before).await.unwrap_or_else(|error| panic!("{version} down again: {error}"));
    }

    // All migrations are undone and only apalis' tables with their jobs are left. Migrate again to a working system.
    let jobs = value(&pool, "SELECT count(*) FROM apalis.jobs").await;
    assert!(jobs.parse::<u32>().unwrap() > 40, "{jobs} jobs");
    migrate::run(&pool.clone().into()).await.unwrap();
    assert_eq!(value(&pool, "SELECT count(*) FROM apalis.jobs").await, jobs);
    let (api, _worker) = (Api::start(&database.url, &[]).await, start_worker(&database.url, &[]).await);
    api.wait_until_ready().await;
}

/// The commands of `migrations/README.md`, in one transaction.
#[tokio::test]
async fn an_operator_undoes_one_migration_by_hand() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let newest = *versions().await.last().unwrap();
    let files = std::fs::read_dir(super::migrations_dir()).unwrap().filter_map(Result::ok).map(|entry| entry.path());
    let down = |path: &std::path::PathBuf| {
        path.display().to_string().contains(&format!("/{newest}_")) && path.display().to_string().ends_with(".down.sql")
    };
    let down = std::fs::read_to_string(files.into_iter().find(down).unwrap()).unwrap();
    execute(&pool, &format!("BEGIN; {down}; DELETE FROM _sqlx_migrations WHERE version = {newest}; COMMIT")).await;
    let behind = migrate::check(&pool.clone().into()).await.unwrap_err().to_string();
    assert!(behind.contains("1 migrations missing"), "{behind}");
    migrate::run(&pool.clone().into()).await.unwrap();
    migrate::check(&pool.clone().into()).await.unwrap();
}
