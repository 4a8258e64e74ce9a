//! Upgrades: migrations up and down on filled databases, next to running processes, and the errors of refused ones.

mod down_and_up;
mod fill;
mod foreign;
mod in_use;
mod moved_prices;
mod queue_only;
mod rewritten;
mod roles;
mod rolling;
mod schema;
mod server;
mod status;

use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, PgPool, migrate::Migrator};

use crate::harness::database::{self, TestDatabase};

fn migrations_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations")
}

/// Millrace's migrations, with their down files.
async fn read_migrator() -> Migrator {
    Migrator::new(migrations_dir()).await.expect("migrations")
}

/// The versions of Millrace's migrations, oldest first.
async fn versions() -> Vec<i64> {
    let migrator = read_migrator().await;
    let mut versions: Vec<i64> = migrator.iter().map(|migration| migration.version).collect();
    versions.dedup();
    assert!(versions.is_sorted() && versions.len() > 10, "{versions:?}");
    versions
}

/// A database without any migration.
async fn empty_database() -> (TestDatabase, PgPool) {
    let database = database::fresh().await;
    let pool = database.pool().await;
    for statement in ["DROP SCHEMA apalis CASCADE", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"] {
        execute(&pool, statement).await;
    }
    (database, pool)
}

async fn execute(pool: &PgPool, statement: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(pool).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Evaluates an SQL expression as text.
async fn value(pool: &PgPool, expression: &str) -> String {
    let query = AssertSqlSafe(format!("SELECT ({expression})::text"));
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap_or_else(|error| panic!("{expression}: {error}"))
}
