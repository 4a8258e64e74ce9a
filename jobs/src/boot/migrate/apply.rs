//! Applying migrations beside processes that work: one `migrate` at a time, short locks, and another try.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, PgConnection,
    migrate::{Migrate, MigrateError, Migration, Migrator},
};

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
    /// A migration itself fails, or does not fit what was applied before.
    #[error(transparent)]
    Failed(#[from] MigrateError),
    /// The server is older than the SQL in here.
    #[error(transparent)]
    TooOld(#[from] super::TooOld),
    /// Others held a lock all the time.
    #[error(
        "migration {version} found its tables in use for {waited:.0?}: {reason}{}; what was applied before it stands, so \
         run `millrace migrate` again when that has ended, or with more --patience",
        oldest.as_ref().map(|one| format!("; the oldest transaction is that of {one}")).unwrap_or_default()
    )]
    InUse { version: i64, waited: Duration, reason: String, oldest: Option<String> },
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(MigrateError::Execute(error))
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
            Err(error) if is_others_doing(&error) => {}
            Err(error) => return Err(error.into()),
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!("another `migrate` is at work on this database: waiting for its end");
        }
        tokio::time::sleep(TURN_PAUSE).await;
    }
}

/// Applies what is missing of these, in order, up to the version `target`.
///
/// # Errors
/// The first one that failed, or got no lock within `patience` from its own beginning.
pub(super) async fn bring(
    connection: &mut PgConnection,
    migrator: &Migrator,
    target: Option<i64>,
    patience: Duration,
) -> Result<(), ApplyError> {
    let target = target.unwrap_or(i64::MAX);
    // Nothing is as old as this: it makes the ledger, and finds what this program does not know.
    migrator.run_to(i64::MIN, &mut *connection).await?;
    let applied = connection.list_applied_migrations(&migrator.table_name).await?;
    let applied: BTreeSet<i64> = applied.into_iter().map(|done| done.version).collect();
    let known = migrator.iter().filter(|one| !one.migration_type.is_down_migration() && one.version <= target);
    let missing: Vec<&Migration> = known.filter(|one| !applied.contains(&one.version)).collect();
    let begun = Instant::now();
    for migration in &missing {
        apply(connection, migrator, migration, patience).await?;
    }
    if let Some(newest) = missing.last() {
        let (applied, seconds) = (missing.len(), begun.elapsed().as_secs_f64());
        tracing::info!(applied, newest = newest.version, table = &*migrator.table_name, seconds, "migrations applied");
    }
    // Nothing was missing, perhaps: what has changed since it was applied is found all the same.
    Ok(migrator.run_to(target, &mut *connection).await?)
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
        let error = match migrator.run_to(version, &mut *connection).await {
            Ok(()) => {
                tracing::debug!(version, name, seconds = begun.elapsed().as_secs_f64(), "migration applied");
                return Ok(());
            }
            Err(error) if repeatable && is_others_doing(&error) => error,
            Err(error) => return Err(error.into()),
        };
        let oldest = oldest_transaction(connection).await?;
        let waited = begun.elapsed();
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

fn is_others_doing(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else { return false };
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
