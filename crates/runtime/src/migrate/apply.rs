//! Applying migrations beside processes that work: one `migrate` at a time, short locks, and another try.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection,
    migrate::{Migrate, MigrateError, Migration, Migrator},
    postgres::PgDatabaseError,
};

use super::{
    SchemaError,
    look::{self, Foreign, Ledger},
    statements,
};
use crate::error::{causes, is_temporary};

/// How long one `migrate` goes on trying, in all, while others hold what it needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whatever comes after a lock that is waited for waits as well. So nobody waits longer than this, which is less than the
/// time-out of our own statements; for those migrations, too, that do not say it themselves.
const LOCK_TIMEOUT: &str = "2s";
/// Between two tries: what has piled up behind the last one is served meanwhile.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a `migrate` waits for another one without a break. An index that is made CONCURRENTLY waits for everybody's
/// statement, so also for that of a second `migrate` which waits for the first: less than the server's
/// `deadlock_timeout` of 1 s, neither of them fails.
const TURN_TIMEOUT: &str = "300ms";
const TURN_PAUSE: Duration = Duration::from_millis(200);

/// `lock_not_available` and `deadlock_detected`: nothing is wrong, somebody else was there.
const OTHERS: [&str; 2] = ["55P03", "40P01"];

/// Why a database could not be brought to this program's schema; what was applied before stands.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The database cannot be reached, or its session ended.
    #[error("{}", causes(.0))]
    Database(#[from] sqlx::Error),
    /// The server is older than the SQL in here.
    #[error(transparent)]
    TooOld(#[from] super::TooOld),
    /// The database is another program's.
    #[error(transparent)]
    Foreign(#[from] Foreign),
    /// What was applied before does not fit this program.
    #[error(transparent)]
    Misfit(SchemaError),
    /// The database has refused a statement.
    #[error("{}: the database refused the statement `{statement}`: {reason}", of_migration(*.version))]
    Refused { version: Option<i64>, statement: String, reason: String },
    /// Others held a lock all the time.
    #[error(
        "migration {version} found its tables in use for {waited:.0?}: {reason}{}; what was applied before it stands, so \
         run `millrace migrate` again when that has ended, or with more --patience",
        oldest.as_ref().map(|one| format!("; the oldest transaction is that of {one}")).unwrap_or_default()
    )]
    InUse { version: i64, waited: Duration, reason: String, oldest: Option<String> },
}

impl ApplyError {
    /// Whether it may pass by itself: the database cannot be reached, or has no place now.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Database(error) if is_temporary(error))
    }
}

impl From<SchemaError> for ApplyError {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Unreadable(error) => Self::Database(error),
            misfit => Self::Misfit(misfit),
        }
    }
}

fn of_migration(version: Option<i64>) -> String {
    version.map_or_else(|| "the table of migrations".to_owned(), |version| format!("migration {version}"))
}

/// A statement of a migration that failed.
struct Failed {
    statement: String,
    error: sqlx::Error,
}

impl Failed {
    fn of(migration: Option<&Migration>, Self { statement, error }: Self) -> ApplyError {
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

/// Waits until this is the only `migrate` of the database. The lock is the one that sqlx takes, so that releases from
/// before are kept out as well; it ends with the session.
///
/// # Errors
/// The database's.
pub(super) async fn take_turn(connection: &mut PgConnection) -> Result<(), ApplyError> {
    set_lock_timeout(connection, TURN_TIMEOUT).await?;
    let mut told = false;
    loop {
        match connection.lock().await {
            Ok(()) => return Ok(()),
            Err(MigrateError::Execute(error)) if is_others_doing(&error) => {}
            Err(MigrateError::Execute(error)) => return Err(error.into()),
            Err(other) => return Err(sqlx::Error::Protocol(other.to_string()).into()),
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!("another `migrate` is at work on this database: waiting for its end");
        }
        tokio::time::sleep(TURN_PAUSE).await;
    }
}

/// Applies what the ledger lacks of these, in order, up to the version `target`. With nothing to do it writes nothing,
/// and so needs no right to.
///
/// # Errors
/// The first one that failed, or got no lock within `patience` from its own beginning.
pub(super) async fn bring(
    connection: &mut PgConnection,
    migrator: &Migrator,
    ledger: Ledger,
    target: Option<i64>,
    patience: Duration,
) -> Result<(), ApplyError> {
    let missing = look::missing(ledger.as_deref().unwrap_or_default(), migrator)?;
    let target = target.unwrap_or(i64::MAX);
    let known = migrator.iter().filter(|one| !one.migration_type.is_down_migration() && one.version <= target);
    let missing: Vec<&Migration> = known.filter(|one| missing.contains(&one.version)).collect();
    if ledger.is_none() {
        make_ledger(connection, migrator).await.map_err(|failed| Failed::of(None, failed))?;
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

/// Makes the table of migrations, in sqlx's form, and its schema where that is missing: to ask for a schema that is
/// there needs the right to create one.
async fn make_ledger(connection: &mut PgConnection, migrator: &Migrator) -> Result<(), Failed> {
    const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
    let refused = |statement: &str| {
        let statement = statement.to_owned();
        move |error| Failed { statement, error }
    };
    for schema in migrator.create_schemas.iter() {
        let exists = sqlx::query_scalar(EXISTS).bind(&**schema).fetch_one(&mut *connection).await;
        if !exists.map_err(refused(EXISTS))? {
            let create = format!("CREATE SCHEMA {schema}");
            let created = sqlx::query(AssertSqlSafe(create.clone())).execute(&mut *connection).await;
            created.map_err(refused(&create))?;
        }
    }
    let create = format!(
        "CREATE TABLE {} (version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz NOT NULL DEFAULT \
         now(), success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL)",
        migrator.table_name
    );
    let created = sqlx::query(AssertSqlSafe(create.clone())).execute(connection).await;
    created.map_err(refused(&create)).map(drop)
}

async fn apply(
    connection: &mut PgConnection,
    migrator: &Migrator,
    migration: &Migration,
    patience: Duration,
) -> Result<(), ApplyError> {
    let (version, name) = (migration.version, &*migration.description);
    // What runs outside of a transaction takes locks behind which nobody queues, may wait for every transaction there is,
    // and leaves half of its work behind when it fails: it waits, and is not tried again.
    let repeatable = !migration.no_tx;
    set_lock_timeout(connection, if repeatable { LOCK_TIMEOUT } else { "0" }).await?;
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let failed = match execute(connection, migrator, migration).await {
            Ok(()) => {
                tracing::debug!(version, name, seconds = begun.elapsed().as_secs_f64(), "migration applied");
                return Ok(());
            }
            Err(failed) if repeatable && is_others_doing(&failed.error) => failed,
            Err(failed) => return Err(Failed::of(Some(migration), failed)),
        };
        let oldest = oldest_transaction(connection).await?;
        let (waited, error) = (begun.elapsed(), failed.error);
        if waited + pause > patience {
            return Err(ApplyError::InUse { version, waited, reason: error.to_string(), oldest });
        }
        tracing::warn!(
            version,
            name,
            %error,
            oldest_transaction = oldest,
            again_in_seconds = pause.as_secs_f64(),
            "a migration found its tables in use: it is tried again"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Runs one migration and records it: in one transaction, unless it says that it cannot be in one.
async fn execute(connection: &mut PgConnection, migrator: &Migrator, migration: &Migration) -> Result<(), Failed> {
    let failed = |statement: &str| {
        let statement = statement.to_owned();
        move |error| Failed { statement, error }
    };
    if migration.no_tx {
        return execute_in(connection, migrator, migration).await;
    }
    let mut transaction = connection.begin().await.map_err(failed("BEGIN"))?;
    execute_in(&mut transaction, migrator, migration).await?;
    transaction.commit().await.map_err(failed("COMMIT"))
}

async fn execute_in(connection: &mut PgConnection, migrator: &Migrator, migration: &Migration) -> Result<(), Failed> {
    let begun = Instant::now();
    let mut done = 0;
    let mut results = sqlx::raw_sql(migration.sql.clone()).execute_many(&mut *connection);
    while let Some(result) = results.next().await {
        match result {
            Ok(_) => done += 1,
            Err(error) => {
                let statement = statements::split(migration.sql.as_str()).get(done).copied().unwrap_or_default();
                return Err(Failed { statement: statements::one_line(statement), error });
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
    inserted.map_err(|error| Failed { statement: insert, error }).map(drop)
}

/// Whether nothing is wrong, and others were there first.
fn is_others_doing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| OTHERS.contains(&&*code))
}

async fn set_lock_timeout(connection: &mut PgConnection, limit: &str) -> sqlx::Result<()> {
    let set = AssertSqlSafe(format!("SET lock_timeout = '{limit}'"));
    sqlx::query(set).execute(connection).await.map(drop)
}

/// Who is most likely in the way: an operator's first question.
async fn oldest_transaction(connection: &mut PgConnection) -> sqlx::Result<Option<String>> {
    const QUERY: &str = "
        SELECT format('%s, process %s, %s for %s s', coalesce(nullif(application_name, ''), usename, 'somebody'), pid,
                      state, round(extract(epoch FROM clock_timestamp() - xact_start)))
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
        ORDER BY xact_start LIMIT 1";
    sqlx::query_scalar(QUERY).fetch_optional(connection).await
}
