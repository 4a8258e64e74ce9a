//! Upgrades: the schema goes up and down under data, beside processes that work, and says what is in its way.

mod beside;
mod down_and_up;
mod fill;
mod foreign;
mod in_use;
mod moved_prices;
mod rewritten;
mod roles;
mod schema;
mod server;
mod status;

use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, PgPool, migrate::Migrator};

use crate::harness::database::{self, TestDatabase};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations")
}

/// Ours, with their way down.
async fn ours() -> Migrator {
    Migrator::new(folder()).await.expect("migrations")
}

/// The versions of ours, oldest first.
async fn versions() -> Vec<i64> {
    let migrator = ours().await;
    let mut versions: Vec<i64> = migrator.iter().map(|migration| migration.version).collect();
    versions.dedup();
    assert!(versions.is_sorted() && versions.len() > 10, "{versions:?}");
    versions
}

/// A database in which nobody has migrated anything.
async fn empty() -> (TestDatabase, PgPool) {
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

/// One value as text.
async fn value(pool: &PgPool, expression: &str) -> String {
    let query = AssertSqlSafe(format!("SELECT ({expression})::text"));
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap_or_else(|error| panic!("{expression}: {error}"))
}
