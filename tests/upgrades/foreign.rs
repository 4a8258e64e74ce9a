//! `migrate` refuses the database of another program, or in another encoding, before it writes anything. It accepts an
//! empty database and its own.

use std::time::Duration;

use sqlx::PgPool;

use super::{empty_database, execute, read_migrator, value};
use crate::harness::{database, process::Process, scratch::Scratch};

const SOON: Duration = Duration::from_secs(30);

/// Databases of other programs: case, statements that create it, and the reason in the error.
const FOREIGN_DATABASES: [(&str, &str, &str); 9] = [
    (
        "another sqlx application",
        "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz NOT
         NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL);
         INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (20240101000000, 'create accounts', true, '', 0), (20240102000000, 'more', true, '', 0)",
        "lists 2 migrations of another program, such as 20240101000000 \"create accounts\"",
    ),
    ("another tool's table of this name", "CREATE TABLE _sqlx_migrations (name text)", "not one of sqlx"),
    (
        "the tables of another shop",
        "CREATE TABLE users (id serial PRIMARY KEY, email text); CREATE TABLE items (id int); CREATE VIEW v AS SELECT 1",
        "it has the table public.items, the table public.users, the sequence public.users_id_seq, the view public.v",
    ),
    (
        "many tables",
        "CREATE TABLE a (); CREATE TABLE b (); CREATE TABLE c (); CREATE TABLE d (); CREATE TABLE e (); CREATE TABLE f ()",
        "the table public.e and 1 more",
    ),
    ("another schema", "CREATE SCHEMA shop; CREATE TABLE shop.orders (id int)", "the table shop.orders"),
    (
        "a partitioned table",
        "CREATE TABLE events (at date) PARTITION BY RANGE (at)",
        "the table public.events",
    ),
    ("a function", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "the function public.f"),
    ("a type", "CREATE TYPE mood AS ENUM ('well')", "the type public.mood"),
    ("another schema apalis", "CREATE SCHEMA apalis; CREATE TABLE apalis.jobs (id int)", "the table apalis.jobs"),
];

/// The names of all objects in the database.
async fn object_names(pool: &PgPool) -> String {
    const NAMES: &str = "(SELECT string_agg(name, ' ' ORDER BY name) FROM (
        SELECT oid::regclass::text FROM pg_class UNION ALL SELECT nspname FROM pg_namespace
        UNION ALL SELECT extname FROM pg_extension UNION ALL SELECT oid::regprocedure::text FROM pg_proc
        UNION ALL SELECT oid::regtype::text FROM pg_type) AS n (name))";
    value(pool, NAMES).await
}

async fn assert_refused(arguments: &[&str], url: &str, case: &str, reason: &str) -> String {
    let folder = Scratch::new();
    let mut process = Process::start_in(&folder, arguments, &[("DATABASE_URL", url), ("PORT", "0")]);
    assert_eq!(process.wait_for_exit(SOON).await.code(), Some(1), "{case}: {}", process.log());
    let log = process.log();
    assert!(log.contains(reason), "{case}: {reason}: {log}");
    log
}

#[tokio::test]
async fn a_foreign_database_is_refused_before_anything_is_written() {
    for (case, statements, reason) in FOREIGN_DATABASES {
        let (database, pool) = empty_database().await;
        execute(&pool, statements).await;
        let before = object_names(&pool).await;
        // The all-in-one process migrates too.
        for arguments in [&["migrate"][..], &["migrate", "--status"], &[]] {
            let log = assert_refused(arguments, &database.url, case, reason).await;
            assert!(log.contains("neither empty nor Millrace's") && log.contains(&database.name), "{case}: {log}");
        }
        assert_eq!(object_names(&pool).await, before, "{case}: nothing was written");
    }
}

#[tokio::test]
async fn a_database_in_another_encoding_is_refused_before_anything_is_written() {
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let options = format!("ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
        let database = database::create(&options).await;
        let pool = database.pool().await;
        let before = object_names(&pool).await;
        let reason = format!("the database {} has the encoding {encoding}, and Millrace needs UTF8", database.name);
        for arguments in [&["migrate"][..], &["migrate", "--status"], &["api"], &["worker"], &[]] {
            let log = assert_refused(arguments, &database.url, encoding, &reason).await;
            let remedy = "CREATE DATABASE millrace ENCODING 'UTF8' TEMPLATE template0";
            assert!(log.contains(remedy), "{encoding}: {arguments:?}: {log}");
        }
        let refused = queue::migrate(&pool.clone().into()).await.expect_err("the queue alone").to_string();
        assert!(refused.contains(&reason), "{encoding}: {refused}");
        assert_eq!(object_names(&pool).await, before, "{encoding}: nothing was written");
    }
}

#[tokio::test]
async fn a_database_with_the_jobs_of_another_apalis_program_is_refused() {
    let (database, pool) = only_apalis_tables().await;
    execute(&pool, "INSERT INTO apalis.jobs (id, job_type, job, status) VALUES ('x', 'q', '', 'Pending')").await;
    let before = object_names(&pool).await;
    assert_refused(&["migrate"], &database.url, "apalis", "its schema apalis holds the jobs of another program").await;
    assert_eq!(object_names(&pool).await, before);
    execute(&pool, "INSERT INTO apalis._sqlx_migrations VALUES (1, 'theirs', now(), true, '', 0)").await;
    assert_refused(&["migrate"], &database.url, "apalis", "such as 1 \"theirs\"").await;
}

#[tokio::test]
async fn api_and_worker_report_a_foreign_database() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    execute(&pool, "UPDATE _sqlx_migrations SET version = version - 10000000000").await;
    for command in ["api", "worker"] {
        assert_refused(&[command], &database.url, command, "the database is another program's").await;
    }
}

/// A database with apalis' tables and none of Millrace's, as after an interrupted first `migrate`.
async fn only_apalis_tables() -> (database::TestDatabase, PgPool) {
    let database = database::fresh().await;
    let pool = database.pool().await;
    read_migrator().await.undo(&pool, 0).await.unwrap();
    execute(&pool, "DROP TABLE _sqlx_migrations; DROP EXTENSION IF EXISTS pg_trgm").await;
    (database, pool)
}

#[tokio::test]
async fn an_empty_database_and_an_interrupted_migration_are_accepted() {
    let (database, pool) = empty_database().await;
    let extensions = "CREATE EXTENSION hstore; CREATE EXTENSION pg_trgm; CREATE SCHEMA apalis; CREATE SCHEMA spare";
    execute(&pool, extensions).await;
    let (interrupted, _pool) = only_apalis_tables().await;
    for url in [&database.url, &interrupted.url] {
        let mut migrate = Process::start(&["migrate"], &[("DATABASE_URL", url)]);
        assert!(migrate.wait_for_exit(SOON).await.success(), "{}", migrate.log());
    }
    // In a migrated database, tables of others are accepted.
    execute(&pool, "CREATE TABLE notes_of_an_operator (id int)").await;
    let mut migrate = Process::start(&["migrate"], &[("DATABASE_URL", &database.url)]);
    assert!(migrate.wait_for_exit(SOON).await.success(), "{}", migrate.log());
}
