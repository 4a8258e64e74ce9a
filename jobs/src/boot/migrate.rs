//! The schema: apalis' own migrations first, then ours; and the check that a process and a database fit together.

mod apply;

use std::{collections::BTreeMap, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, SqlSafeStr,
    migrate::{Migrate, MigrateError, Migrator},
};
use tracing::log::LevelFilter;

pub use self::apply::{ApplyError, PATIENCE};
use super::{db::answered, pooler, row_security, settings::OLDEST_SERVER};

fn ours() -> Migrator {
    sqlx::migrate!("../migrations")
}

/// Two of apalis' early migrations ask for this extension and a later one (20260605000000) ends its only use. Some
/// builds of PostgreSQL come without it, so a new database never asks; the recorded checksums stay those of apalis.
const UNUSED_EXTENSION: &str = "CREATE EXTENSION IF NOT EXISTS pgcrypto;";

fn apalis() -> Migrator {
    let mut migrator = apalis_postgres::PostgresStorage::<()>::migrations();
    for migration in migrator.migrations.to_mut() {
        if migration.sql.as_str().contains(UNUSED_EXTENSION) {
            let sql = migration.sql.as_str().replace(UNUSED_EXTENSION, "");
            migration.sql = AssertSqlSafe(sql).into_sql_str();
        }
    }
    migrator
}

/// Why a process may not work on a database.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(transparent)]
    TooOld(#[from] TooOld),
    #[error("the database is not migrated ({missing} migrations missing): run `millrace migrate`")]
    Behind { missing: usize },
    #[error("the database is newer than this program ({unknown} unknown migrations): run a newer millrace")]
    Ahead { unknown: usize, missing: usize },
    #[error("migration {version} has changed since it was applied to this database")]
    Changed { version: i64 },
    #[error(
        "row-level security hides rows of {tables} from this user: give it BYPASSRLS, or ALTER TABLE ... DISABLE ROW \
         LEVEL SECURITY"
    )]
    Hidden { tables: String },
    #[error("cannot read the schema's version: {0}")]
    Unreadable(#[from] sqlx::Error),
}

/// The server is older than what our statements are written for.
#[derive(Debug, thiserror::Error)]
#[error("the database server is PostgreSQL {}, and Millrace needs 15 or newer: DATABASE_URL must name such a server", major(*.0))]
pub struct TooOld(u32);

fn major(version: u32) -> u32 {
    version / 10_000
}

/// What a session was told when it began; nothing is asked. Servers that hide their version are taken as they are.
fn check_server(session: &PgConnection) -> Result<(), TooOld> {
    session
        .server_version_num()
        .filter(|version| *version < OLDEST_SERVER)
        .map_or(Ok(()), |version| Err(TooOld(version)))
}

/// Brings the database to this program's schema. Safe to run many times and by several processes at once.
///
/// # Errors
/// The first migration that failed; those before it stand.
pub async fn run(pool: &PgPool) -> Result<(), ApplyError> {
    run_to(pool, None, PATIENCE).await
}

/// As [`run`], up to the version `last` of ours, as an earlier release would leave a database; a migration whose tables
/// are in use is tried again for as long as `patience`.
///
/// # Errors
/// The first migration that failed; those before it stand.
pub async fn run_to(pool: &PgPool, last: Option<i64>, patience: Duration) -> Result<(), ApplyError> {
    // A migration takes as long as it takes; no other connection has that liberty.
    // It is no news either that one takes longer than a statement should.
    let options = pool.connect_options().as_ref().clone().log_slow_statements(LevelFilter::Off, Duration::MAX);
    let mut connection: PgConnection = answered(options.connect()).await?;
    check_server(&connection)?;
    sqlx::query("SET statement_timeout = 0").execute(&mut connection).await?;
    apply::take_turn(&mut connection).await?;
    for (mut migrator, last) in [(apalis(), None), (ours(), last)] {
        // One turn for all of them.
        migrator.set_locking(false);
        apply::bring(&mut connection, &migrator, last, patience).await?;
    }
    Ok(connection.close().await?)
}

/// Changes whenever any migration does; names what was built from them, such as the template database of the tests.
pub fn fingerprint() -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for migrator in [apalis(), ours()] {
        migrator.iter().for_each(|migration| hash.update(migration.sql.as_str()));
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Makes sure that the database has exactly this program's schema.
///
/// # Errors
/// What does not fit, or why that could not be found out.
pub async fn check(pool: &PgPool) -> Result<(), SchemaError> {
    check_ledger(pool, &apalis()).await?;
    check_ledger(pool, &ours()).await?;
    check_rows(pool).await
}

async fn check_rows(pool: &PgPool) -> Result<(), SchemaError> {
    row_security::hidden(pool).await?.map_or(Ok(()), |tables| Err(SchemaError::Hidden { tables }))
}

/// Makes sure that a process which has started can go on. The next release migrates while this one works, and what it
/// adds is in nobody's way (`migrations/README.md`): were that a reason to be unready, every process would be, from the
/// migration until the new ones serve.
///
/// # Errors
/// As [`check`], but for a database that has all of this program's schema and more.
pub async fn check_again(pool: &PgPool) -> Result<(), SchemaError> {
    for migrator in [apalis(), ours()] {
        match check_ledger(pool, &migrator).await {
            Err(SchemaError::Ahead { missing: 0, .. }) => {}
            other => other?,
        }
    }
    check_rows(pool).await
}

async fn check_ledger(pool: &PgPool, migrator: &Migrator) -> Result<(), SchemaError> {
    let mut transaction = pooler::begin(pool).await?;
    check_server(&transaction)?;
    let table = migrator.table_name.to_string();
    let applied = match transaction.list_applied_migrations(&table).await {
        Ok(applied) => applied,
        // No ledger yet: nothing was ever applied.
        Err(MigrateError::Execute(sqlx::Error::Database(error))) if error.code().as_deref() == Some("42P01") => {
            Vec::new()
        }
        Err(MigrateError::Execute(error)) => return Err(error.into()),
        Err(other) => return Err(sqlx::Error::Protocol(other.to_string()).into()),
    };
    let wanted: BTreeMap<i64, &[u8]> = migrator
        .iter()
        .filter(|migration| !migration.migration_type.is_down_migration())
        .map(|migration| (migration.version, &*migration.checksum))
        .collect();
    let mut unknown = 0;
    for done in &applied {
        match wanted.get(&done.version) {
            None => unknown += 1,
            Some(checksum) if **checksum != *done.checksum => {
                return Err(SchemaError::Changed { version: done.version });
            }
            Some(_) => {}
        }
    }
    match wanted.len() + unknown - applied.len() {
        missing if unknown > 0 => Err(SchemaError::Ahead { unknown, missing }),
        0 => Ok(()),
        missing => Err(SchemaError::Behind { missing }),
    }
}
