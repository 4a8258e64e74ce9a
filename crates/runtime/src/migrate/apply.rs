//! Applies migrations while other processes use the database: one `migrate` at a time, short lock waits, and retries.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection,
    migrate::{Migrate, MigrateError, Migration, Migrator},
    postgres::PgDatabaseError,
};

use super::{
    error::ApplyError,
    ledger::{self, Ledger},
    statements,
};
use crate::error::causes;

/// How long a migration is retried by default while other transactions hold its locks.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// PostgreSQL queues every later statement behind a waiting DDL lock. This limit is below the 5 s time-out of our
/// statements, so that a migration fails before other statements do. It also applies to migrations that set no limit.
const LOCK_TIMEOUT: &str = "2s";
/// The pause between two attempts, in which the statements queued behind the last attempt run.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// How long one attempt waits for the lock of another `migrate`. CREATE INDEX CONCURRENTLY waits for all running
/// statements, including this wait for the lock, which is a deadlock. The server detects it after its `deadlock_timeout`
/// of 1 s. A shorter attempt ends before that, so neither process fails.
const MIGRATION_LOCK_TIMEOUT: &str = "300ms";
const MIGRATION_LOCK_PAUSE: Duration = Duration::from_millis(200);

/// `lock_not_available` and `deadlock_detected`: another transaction holds the lock, and a retry may succeed.
const LOCK_CONFLICTS: [&str; 2] = ["55P03", "40P01"];

/// A failed statement of a migration.
struct FailedStatement {
    statement: String,
    error: sqlx::Error,
}

impl FailedStatement {
    fn of(statement: &str) -> impl FnOnce(sqlx::Error) -> Self {
        let statement = statement.to_owned();
        move |error| Self { statement, error }
    }

    fn into_error(self, migration: Option<&Migration>) -> ApplyError {
        let Self { statement, error } = self;
        let Some(database) = error.as_database_error() else { return ApplyError::Database(error) };
        let mut reason = database.message().to_owned();
        if let Some(hint) = database.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::hint) {
            reason.push_str("; ");
            reason.push_str(hint.trim_end_matches('.'));
        }
        // `insufficient_privilege`
        if database.code().as_deref() == Some("42501") {
            reason.push_str("; deploy/postgres/roles.sql grants what is needed");
        }
        ApplyError::Refused { version: migration.map(|one| one.version), statement, reason }
    }
}

/// Acquires the migration lock, so that only one `migrate` works on the database. It is sqlx's own lock, so that it also
/// excludes earlier releases. It is released when the session ends.
///
/// # Errors
/// When the database refuses the lock for another reason than a conflict, or the session ends.
pub(super) async fn acquire_migration_lock(connection: &mut PgConnection) -> Result<(), ApplyError> {
    set_lock_timeout(connection, MIGRATION_LOCK_TIMEOUT).await?;
    let mut logged = false;
    loop {
        match connection.lock().await {
            Ok(()) => return Ok(()),
            Err(MigrateError::Execute(error)) if is_lock_conflict(&error) => {}
            Err(MigrateError::Execute(error)) => return Err(error.into()),
            Err(other) => return Err(sqlx::Error::Protocol(other.to_string()).into()),
        }
        if !std::mem::replace(&mut logged, true) {
            tracing::info!("another `migrate` is at work on this database; waiting until it ends");
        }
        tokio::time::sleep(MIGRATION_LOCK_PAUSE).await;
    }
}

/// Applies the migrations that the ledger lacks, in order, up to the version `target`. If none is missing, it writes
/// nothing and needs no right to write.
///
/// # Errors
/// When a migration fails, or gets no lock within `patience`, counted for each migration.
pub(super) async fn apply_missing(
    connection: &mut PgConnection,
    migrator: &Migrator,
    ledger: Ledger,
    target: Option<i64>,
    patience: Duration,
) -> Result<(), ApplyError> {
    let missing = ledger::missing(ledger.as_deref().unwrap_or_default(), migrator)?;
    let target = target.unwrap_or(i64::MAX);
    let known = migrator.iter().filter(|one| !one.migration_type.is_down_migration() && one.version <= target);
    let missing: Vec<&Migration> = known.filter(|one| missing.contains(&one.version)).collect();
    if ledger.is_none() {
        create_ledger(connection, migrator).await.map_err(|failed| failed.into_error(None))?;
    }
    let begun = Instant::now();
    for migration in &missing {
        apply(connection, migrator, migration, patience).await?;
    }
    if let Some(newest) = missing.last() {
        let (applied, seconds) = (missing.len(), begun.elapsed().as_secs_f64());
        tracing::info!(applied, newest = newest.version, table = &*migrator.table_name, seconds, "migrations applied");
    }
    Ok(())
}

/// Creates the ledger in sqlx's form, and its schema if that is missing. The schema is looked up first, because even
/// `CREATE SCHEMA IF NOT EXISTS` needs the right to create one.
async fn create_ledger(connection: &mut PgConnection, migrator: &Migrator) -> Result<(), FailedStatement> {
    const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
    for schema in migrator.create_schemas.iter() {
        let exists = sqlx::query_scalar(EXISTS).bind(&**schema).fetch_one(&mut *connection).await;
        if !exists.map_err(FailedStatement::of(EXISTS))? {
            let create = format!("CREATE SCHEMA {schema}");
            let created = sqlx::query(AssertSqlSafe(create.clone())).execute(&mut *connection).await;
            created.map_err(FailedStatement::of(&create))?;
        }
    }
    let create = format!(
        "CREATE TABLE {} (version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz NOT NULL DEFAULT \
         now(), success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL)",
        migrator.table_name
    );
    let created = sqlx::query(AssertSqlSafe(create.clone())).execute(connection).await;
    created.map_err(FailedStatement::of(&create)).map(drop)
}

/// Applies one migration. Retries it while other transactions hold its locks, for up to `patience`.
async fn apply(
    connection: &mut PgConnection,
    migrator: &Migrator,
    migration: &Migration,
    patience: Duration,
) -> Result<(), ApplyError> {
    let (version, name) = (migration.version, &*migration.description);
    // A migration outside a transaction takes locks that block no other statement, and may wait for every open
    // transaction. If it fails, it leaves partial work behind. So it waits without a limit and is not retried.
    let is_retryable = !migration.no_tx;
    set_lock_timeout(connection, if is_retryable { LOCK_TIMEOUT } else { "0" }).await?;
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let failed = match execute(connection, migrator, migration).await {
            Ok(()) => {
                tracing::debug!(version, name, seconds = begun.elapsed().as_secs_f64(), "migration applied");
                return Ok(());
            }
            Err(failed) if is_retryable && is_lock_conflict(&failed.error) => failed,
            Err(failed) => return Err(failed.into_error(Some(migration))),
        };
        let oldest = oldest_transaction(connection).await?;
        let (waited, error) = (begun.elapsed(), causes(&failed.error));
        if waited + pause > patience {
            return Err(ApplyError::InUse { version, waited, reason: error, oldest });
        }
        tracing::warn!(
            version,
            name,
            error,
            oldest_transaction = oldest,
            retry_after_s = pause.as_secs_f64(),
            "a migration found its tables in use; retrying"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Runs one migration and records it in the ledger. Both happen in one transaction, unless the migration excludes that.
async fn execute(
    connection: &mut PgConnection,
    migrator: &Migrator,
    migration: &Migration,
) -> Result<(), FailedStatement> {
    if migration.no_tx {
        return execute_on(connection, migrator, migration).await;
    }
    let mut transaction = connection.begin().await.map_err(FailedStatement::of("BEGIN"))?;
    execute_on(&mut transaction, migrator, migration).await?;
    transaction.commit().await.map_err(FailedStatement::of("COMMIT"))
}

/// Runs the statements of a migration on this connection, and records the migration in the ledger.
async fn execute_on(
    connection: &mut PgConnection,
    migrator: &Migrator,
    migration: &Migration,
) -> Result<(), FailedStatement> {
    let begun = Instant::now();
    let mut completed = 0;
    let mut results = sqlx::raw_sql(migration.sql.clone()).execute_many(&mut *connection);
    while let Some(result) = results.next().await {
        match result {
            Ok(_) => completed += 1,
            Err(error) => {
                let statement = statements::split(migration.sql.as_str()).get(completed).copied().unwrap_or_default();
                return Err(FailedStatement { statement: statements::one_line(statement), error });
            }
        }
    }
    drop(results);
    let insert = format!(
        "INSERT INTO {} (version, description, success, checksum, execution_time) VALUES ($1, $2, TRUE, $3, $4)",
        migrator.table_name
    );
    let inserted = sqlx::query(AssertSqlSafe(insert.clone()))
        .bind(migration.version)
        .bind(&*migration.description)
        .bind(&*migration.checksum)
        .bind(i64::try_from(begun.elapsed().as_nanos()).unwrap_or(i64::MAX))
        .execute(connection)
        .await;
    inserted.map_err(FailedStatement::of(&insert)).map(drop)
}

/// Whether a statement failed because of another transaction's lock.
fn is_lock_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| LOCK_CONFLICTS.contains(&&*code))
}

async fn set_lock_timeout(connection: &mut PgConnection, limit: &str) -> sqlx::Result<()> {
    let set = AssertSqlSafe(format!("SET lock_timeout = '{limit}'"));
    sqlx::query(set).execute(connection).await.map(drop)
}

/// Describes the oldest open transaction, which most likely holds the lock.
async fn oldest_transaction(connection: &mut PgConnection) -> sqlx::Result<Option<String>> {
    const QUERY: &str = "
        SELECT format('%s, process %s, %s for %s s', coalesce(nullif(application_name, ''), usename, 'unknown'), pid,
                      state, round(extract(epoch FROM clock_timestamp() - xact_start)))
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
        ORDER BY xact_start LIMIT 1";
    sqlx::query_scalar(QUERY).fetch_optional(connection).await
}
