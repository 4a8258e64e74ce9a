//! The queue's migrations in the database of another program: they create only the queue's tables, exactly as Millrace's
//! own migrations do, and leave everything else as it is.

use runtime::migrate;

use super::{
    empty_database, execute,
    schema::{assert_same, schema},
    value,
};
use crate::harness::{
    database,
    queue_harness::{QueueHarness, ScriptedJobs, Step, quick_policy},
};

/// A program that uses sqlx's migrations itself, and has a table that Millrace has as well.
const STRANGER: &str = "
    CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz NOT NULL
        DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL);
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (20240101000000, 'create accounts', true, '', 0);
    CREATE TABLE users (id int PRIMARY KEY, name text);
    INSERT INTO users VALUES (1, 'ada')";

/// The tables that only Millrace's services use. A new table of a service is added here.
const SERVICE_TABLES: [&str; 17] = [
    "transactions",
    "webhook_conflicts",
    "webhook_conflict_totals",
    "webhook_replays",
    "callbacks",
    "callback_destinations",
    "users",
    "items",
    "item_documents",
    "item_words",
    "interest_rates",
    "chain_sends",
    "probes",
    "prices",
    "moved_prices",
    "spot_prices",
    "price_fetches",
];

#[tokio::test]
async fn the_queue_gets_the_same_tables_without_millrace_as_with_it() {
    let (_database, alone) = empty_database().await;
    queue::migrate(&alone.clone().into()).await.expect("the queue's tables");
    let all = database::fresh().await;
    let is_of_the_queue = |line: &String| {
        let names_a_service = SERVICE_TABLES.iter().any(|table| {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.any(|word| word == *table || word.starts_with(&format!("{table}_")))
        });
        !names_a_service && !line.contains("uuid_v7") && !line.contains("pg_trgm")
    };
    let expected: Vec<String> = schema(&all.pool().await).await.into_iter().filter(is_of_the_queue).collect();
    let found: Vec<String> =
        schema(&alone).await.into_iter().filter(|line| !line.contains("_queue_migrations")).collect();
    assert_same(&found, &expected, "the queue alone");
}

#[tokio::test]
async fn another_program_keeps_its_tables_and_runs_jobs() {
    let (database, pool) = empty_database().await;
    execute(&pool, STRANGER).await;
    for _ in 0..2 {
        queue::migrate(&pool.clone().into()).await.expect("the queue's tables");
    }
    assert_eq!(value(&pool, "SELECT string_agg(name, ' ') FROM users").await, "ada");
    assert_eq!(value(&pool, "SELECT count(*) FROM _sqlx_migrations").await, "1");

    let harness = QueueHarness::on_database(&database.url).await;
    harness.enqueue("plain", &[Step::Done]).await;
    harness.enqueue("retried", &[Step::Fail, Step::Snooze(1), Step::Done]).await;
    harness.enqueue("rejected", &[Step::Reject]).await;
    harness.run_all(&ScriptedJobs::new(quick_policy())).await;
    assert_eq!(harness.row("retried").await.status, "Done");
    assert_eq!(harness.row("rejected").await.status, "Killed");
}

#[tokio::test]
async fn in_millraces_own_database_nothing_is_changed() {
    let own = database::fresh().await;
    let pool = own.pool().await;
    let before = schema(&pool).await;
    queue::migrate(&pool.clone().into()).await.expect("nothing to do");
    assert_same(&schema(&pool).await, &before, "Millrace's own database");
    migrate::check(&pool.clone().into()).await.expect("the schema of this release");

    execute(&pool, "DELETE FROM _sqlx_migrations WHERE description = 'create replays'").await;
    let error = queue::migrate(&pool.into()).await.expect_err("a missing migration").to_string();
    assert!(error.contains("run `millrace migrate`"), "{error}");
}
