//! Database migrations: those of apalis first, then ours. Also the check that a database has the schema of this release.

mod apply;
mod encoding;
mod error;
mod ledger;
mod queue_only;
mod statements;

use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqlSafeStr, migrate::Migrator};
use tracing::log::LevelFilter;

pub use self::{
    apply::PATIENCE,
    error::{ApplyError, ForeignDatabase, SchemaError, ServerTooOld, WrongEncoding},
    queue_only::run_queue_only,
};
use super::{executor, row_security, settings::OLDEST_SERVER, time_limit::with_time_limit};
use crate::db::Pool;

/// Millrace's migrations.
fn millrace_migrations() -> Migrator {
    let mut migrator = sqlx::migrate!("../../migrations");
    // With its schema, so that the `search_path` of the role or the database does not matter.
    migrator.dangerous_set_table_name("public._sqlx_migrations");
    migrator
}

/// Two early migrations of apalis create this extension, and a later one (20260605000000) removes its only use. Some
/// builds of PostgreSQL lack it, so we leave it out. The recorded checksums stay those of apalis.
const UNUSED_EXTENSION: &str = "CREATE EXTENSION IF NOT EXISTS pgcrypto;";

/// The migrations of apalis, without [`UNUSED_EXTENSION`].
fn apalis_migrations() -> Migrator {
    let mut migrator = apalis_postgres::PostgresStorage::<()>::migrations();
    for migration in migrator.migrations.to_mut() {
        if migration.sql.as_str().contains(UNUSED_EXTENSION) {
            let sql = migration.sql.as_str().replace(UNUSED_EXTENSION, "");
            migration.sql = AssertSqlSafe(sql).into_sql_str();
        }
    }
    migrator
}

/// Checks the version that the server reported when the session began, without a query. A server that reports no version
/// is accepted.
fn check_server(session: &PgConnection) -> Result<(), ServerTooOld> {
    session
        .server_version_num()
        .filter(|version| *version < OLDEST_SERVER)
        .map_or(Ok(()), |version| Err(ServerTooOld(version)))
}

/// Applies all missing migrations. It may run repeatedly, and in several processes at once.
///
/// # Errors
/// When the database cannot be used or a migration fails. Earlier migrations stay applied.
pub async fn run(pool: &Pool) -> Result<(), ApplyError> {
    run_to(pool, None, PATIENCE).await
}

/// Applies the missing migrations, of ours only those up to version `last`, as an earlier release would. A migration whose
/// tables are in use is retried for up to `patience`.
///
/// # Errors
/// When the database cannot be used or a migration fails. Earlier migrations stay applied.
pub async fn run_to(pool: &Pool, last: Option<i64>, patience: Duration) -> Result<(), ApplyError> {
    let mut connection = connect(pool).await?;
    apply::acquire_migration_lock(&mut connection).await?;
    let migrators = [apalis_migrations(), millrace_migrations()];
    let ledgers = ledger::read_ledgers(&mut connection, &migrators[0], &migrators[1]).await?;
    for ((migrator, ledger), last) in migrators.iter().zip(ledgers).zip([None, last]) {
        apply::apply_missing(&mut connection, migrator, ledger, last, patience).await?;
    }
    Ok(connection.close().await?)
}

/// Opens a session for migrations.
async fn connect(pool: &Pool) -> Result<PgConnection, ApplyError> {
    // Only this connection has no statement time-out, and slow statements are not logged: a migration may take long.
    let options = pool.sessions.connect_options().as_ref().clone().log_slow_statements(LevelFilter::Off, Duration::MAX);
    let mut connection: PgConnection = with_time_limit(options.connect()).await?;
    check_server(&connection)?;
    // The migrations name no schema, so another `search_path` of the role or the database would misplace their tables.
    const SETTINGS: &str = "SET statement_timeout = 0; SET search_path = public";
    sqlx::raw_sql(SETTINGS).execute(&mut connection).await?;
    Ok(connection)
}

/// The applied and missing migrations of a database.
#[derive(Debug)]
pub struct Status {
    /// The number of applied migrations, of apalis and ours.
    pub applied: usize,
    /// Version and description of each missing migration, in order of application.
    pub missing: Vec<(i64, String)>,
    /// Another difference from the schema of this release.
    pub mismatch: Option<SchemaError>,
}

/// Reads which migrations a database has. It changes nothing, and needs only the right to read.
///
/// # Errors
/// When the database belongs to another program, or cannot be read.
pub async fn status(pool: &Pool) -> Result<Status, ApplyError> {
    let mut connection = connect(pool).await?;
    // One snapshot, because another process may be migrating: between two reads, what it commits would look like the
    // objects of another program.
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut connection).await?;
    let migrators = [apalis_migrations(), millrace_migrations()];
    let ledgers = ledger::read_ledgers(&mut connection, &migrators[0], &migrators[1]).await?;
    let mut status = Status { applied: 0, missing: Vec::new(), mismatch: None };
    for (migrator, ledger) in migrators.iter().zip(ledgers) {
        let ledger = ledger.unwrap_or_default();
        status.applied += ledger.len();
        match ledger::missing(&ledger, migrator) {
            Ok(missing) => {
                let migrations = migrator.iter().filter(|one| !one.migration_type.is_down_migration());
                let missing = migrations.filter(|one| missing.contains(&one.version));
                status.missing.extend(missing.map(|one| (one.version, one.description.to_string())));
            }
            Err(mismatch) => status.mismatch = Some(mismatch),
        }
    }
    connection.close().await?;
    Ok(status)
}

/// The versions of the migrations that a database lacks, those of apalis first.
///
/// # Errors
/// When the database has other migrations than this release, or cannot be read.
pub(super) async fn missing(connection: &mut PgConnection) -> Result<Vec<i64>, SchemaError> {
    let mut missing = Vec::new();
    for migrator in [apalis_migrations(), millrace_migrations()] {
        let ledger = ledger::read_ledger(connection, &migrator).await?.unwrap_or_default();
        missing.extend(ledger::missing(&ledger, &migrator)?);
    }
    Ok(missing)
}

/// A hash of all migrations, which identifies their result, such as the template database of the tests.
pub fn fingerprint() -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for migrator in [apalis_migrations(), millrace_migrations()] {
        migrator.iter().for_each(|migration| hash.update(migration.sql.as_str()));
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that the database has exactly the schema of this release.
///
/// # Errors
/// When it has another schema or encoding, or cannot be read.
pub async fn check(pool: &Pool) -> Result<(), SchemaError> {
    check_encoding(pool).await?;
    check_ledger(pool, &apalis_migrations()).await?;
    check_ledger(pool, &millrace_migrations()).await?;
    check_row_security(pool).await
}

async fn check_encoding(pool: &Pool) -> Result<(), SchemaError> {
    let mut transaction = executor::begin(pool).await?;
    check_server(transaction.connection())?;
    encoding::check_encoding(transaction.connection()).await
}

async fn check_row_security(pool: &Pool) -> Result<(), SchemaError> {
    row_security::tables_with_hidden_rows(pool).await?.map_or(Ok(()), |tables| Err(SchemaError::HiddenRows { tables }))
}

/// Checks that the database has the schema of this release or of a later one, for a process that already runs.
///
/// The next release migrates while this one works, and its migrations are compatible (`migrations/README.md`). If a newer
/// schema made a process unready, none would be ready between the migration and the start of the new release.
///
/// # Errors
/// When a migration of this release is missing or changed, or the database cannot be read.
pub async fn check_compatible(pool: &Pool) -> Result<(), SchemaError> {
    for migrator in [apalis_migrations(), millrace_migrations()] {
        match check_ledger(pool, &migrator).await {
            Err(SchemaError::Ahead { missing: 0, .. }) => {}
            other => other?,
        }
    }
    check_row_security(pool).await
}

async fn check_ledger(pool: &Pool, migrator: &Migrator) -> Result<(), SchemaError> {
    let mut transaction = executor::begin(pool).await?;
    check_server(transaction.connection())?;
    match ledger::missing(
        &ledger::read_ledger(transaction.connection(), migrator).await?.unwrap_or_default(),
        migrator,
    )? {
        missing if missing.is_empty() => Ok(()),
        missing => Err(SchemaError::Behind { missing: missing.len() }),
    }
}
