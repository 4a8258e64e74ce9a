//! The schema: apalis' own migrations first, then ours; and the check that a process and a database fit together.

mod apply;
mod look;
mod statements;

use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, SqlSafeStr, migrate::Migrator};
use tracing::log::LevelFilter;

pub use self::{
    apply::{ApplyError, PATIENCE},
    look::Foreign,
};
use super::{db::with_time_limit, pooler, row_security, settings::OLDEST_SERVER};

fn ours() -> Migrator {
    let mut migrator = sqlx::migrate!("../../migrations");
    // The same table as without the schema, whatever the role's or the database's `search_path` is.
    migrator.dangerous_set_table_name("public._sqlx_migrations");
    migrator
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
    #[error(
        "the database is another program's: all {unknown} migrations in its table _sqlx_migrations are unknown; \
             name Millrace's own database in DATABASE_URL"
    )]
    Others { unknown: usize },
    #[error("migration {version} has changed since it was applied to this database")]
    Changed { version: i64 },
    #[error("migration {version} was begun and not finished: see migrations/README.md")]
    HalfDone { version: i64 },
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
    let mut connection = connect(pool).await?;
    apply::take_turn(&mut connection).await?;
    let migrators = [apalis(), ours()];
    let ledgers = look::look(&mut connection, &migrators[0], &migrators[1]).await?;
    for ((migrator, ledger), last) in migrators.iter().zip(ledgers).zip([None, last]) {
        apply::bring(&mut connection, migrator, ledger, last, patience).await?;
    }
    Ok(connection.close().await?)
}

/// A session for migrations.
async fn connect(pool: &PgPool) -> Result<PgConnection, ApplyError> {
    // A migration takes as long as it takes; no other connection has that liberty.
    // It is no news either that one takes longer than a statement should.
    let options = pool.connect_options().as_ref().clone().log_slow_statements(LevelFilter::Off, Duration::MAX);
    let mut connection: PgConnection = with_time_limit(options.connect()).await?;
    check_server(&connection)?;
    // The migrations name no schema: a role or a database with another path would have them elsewhere, or nowhere.
    const SETTINGS: &str = "SET statement_timeout = 0; SET search_path = public";
    sqlx::raw_sql(SETTINGS).execute(&mut connection).await?;
    Ok(connection)
}

/// Which migrations a database has and lacks; found without changing anything.
#[derive(Debug)]
pub struct Status {
    /// How many of the engine's and of ours are applied.
    pub applied: usize,
    /// Version and description of those that are not, in the order in which they would be applied.
    pub missing: Vec<(i64, String)>,
    /// What does not fit otherwise.
    pub misfit: Option<SchemaError>,
}

/// Looks which migrations a database has; needs no right but to read.
///
/// # Errors
/// The database is another program's, or cannot be read.
pub async fn status(pool: &PgPool) -> Result<Status, ApplyError> {
    let mut connection = connect(pool).await?;
    let migrators = [apalis(), ours()];
    let ledgers = look::look(&mut connection, &migrators[0], &migrators[1]).await?;
    let mut status = Status { applied: 0, missing: Vec::new(), misfit: None };
    for (migrator, ledger) in migrators.iter().zip(ledgers) {
        let ledger = ledger.unwrap_or_default();
        status.applied += ledger.len();
        match look::missing(&ledger, migrator) {
            Ok(missing) => {
                let migrations = migrator.iter().filter(|one| !one.migration_type.is_down_migration());
                let missing = migrations.filter(|one| missing.contains(&one.version));
                status.missing.extend(missing.map(|one| (one.version, one.description.to_string())));
            }
            Err(misfit) => status.misfit = Some(misfit),
        }
    }
    connection.close().await?;
    Ok(status)
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
    match look::missing(&look::ledger(&mut transaction, migrator).await?.unwrap_or_default(), migrator)? {
        missing if missing.is_empty() => Ok(()),
        missing => Err(SchemaError::Behind { missing: missing.len() }),
    }
}
