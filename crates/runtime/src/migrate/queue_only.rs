//! The queue's migrations without those of Millrace's services, for a program that uses only the queue.
//!
//! They are recorded in a table of their own. The program's own tables and migrations are neither read nor changed.

use sqlx::{AssertSqlSafe, Connection, PgConnection, SqlSafeStr, migrate::Migrator};

use super::{
    ApplyError, PATIENCE, SchemaError, apalis_migrations, apply, connect, encoding::check_encoding, ledger,
    millrace_migrations, statements,
};
use crate::db::Pool;

/// Where the queue's migrations are recorded in another program's database.
const LEDGER: &str = "apalis._queue_migrations";

/// The migrations that change only the queue's tables.
const QUEUE_MIGRATIONS: [&str; 29] = [
    "tune queue tables",
    "pause queues",
    "cancel running jobs",
    "index dead jobs",
    "drop unused worker indexes",
    "create schedules",
    "record claim errors",
    "separate cancelled jobs",
    "index cancelled jobs",
    "record operator actions",
    "describe workers",
    "group errors",
    "index error groups",
    "count queue minutes",
    "create replays",
    "record job events",
    "watch replays",
    "roll up queue minutes",
    "count queue depths",
    "record fire jobs",
    "estimate queue depths",
    "record worker releases",
    "index dead by error",
    "drop dead groups",
    "index deadly minutes",
    "record automatic actions",
    "add fair keys",
    "index waiting fair keys",
    "index running fair keys",
];

/// The migrations that also change tables of services. Only their statements about the queue's tables are applied.
const MIXED_MIGRATIONS: [&str; 2] = ["settle in place", "compare ids by bytes"];

/// The migrations of [`QUEUE_MIGRATIONS`] and the queue's part of [`MIXED_MIGRATIONS`], with their original checksums.
fn queue_migrations() -> Migrator {
    let mut migrator = millrace_migrations();
    migrator.dangerous_set_table_name(LEDGER);
    let migrations = migrator.migrations.to_mut();
    migrations.retain(|one| {
        let name = &*one.description;
        QUEUE_MIGRATIONS.contains(&name) || MIXED_MIGRATIONS.contains(&name)
    });
    for migration in migrations.iter_mut().filter(|one| MIXED_MIGRATIONS.contains(&&*one.description)) {
        let statements = statements::split(migration.sql.as_str());
        let kept: Vec<&str> = statements.into_iter().filter(|one| is_about_the_queue(one)).collect();
        migration.sql = AssertSqlSafe(kept.join(";\n")).into_sql_str();
    }
    migrator
}

/// Whether a statement sets a limit or changes a table of the schema `apalis`.
fn is_about_the_queue(statement: &str) -> bool {
    let statement = statements::one_line(statement);
    statement.starts_with("SET ") || statement.contains(" apalis.")
}

/// Creates the queue's tables, or applies the migrations that they lack. It may run at every start, and in several
/// processes at once. In Millrace's own database it changes nothing.
///
/// # Errors
/// When the database cannot be used or stores no UTF8, when a migration fails, and when Millrace's own database lacks a
/// migration.
pub async fn run_queue_only(pool: &Pool) -> Result<(), ApplyError> {
    let mut connection = connect(pool).await?;
    check_encoding(&mut connection).await?;
    apply::acquire_migration_lock(&mut connection).await?;
    let queue = queue_migrations();
    if let Some(missing) = missing_in_millrace(&mut connection, &queue).await? {
        connection.close().await?;
        return if missing == 0 { Ok(()) } else { Err(SchemaError::Behind { missing }.into()) };
    }
    for migrator in [apalis_migrations(), queue] {
        let ledger = ledger::read_ledger(&mut connection, &migrator).await?;
        apply::apply_missing(&mut connection, &migrator, ledger, None, PATIENCE).await?;
    }
    Ok(connection.close().await?)
}

/// How many of the queue's migrations Millrace's own database lacks; `None` if the database is another program's.
async fn missing_in_millrace(connection: &mut PgConnection, queue: &Migrator) -> Result<Option<usize>, ApplyError> {
    let applied = match ledger::read_ledger(connection, &millrace_migrations()).await {
        Err(error) if !ledger::is_another_table(&error) => return Err(error.into()),
        ledger => ledger.ok().flatten().unwrap_or_default(),
    };
    let is_applied = |version| applied.iter().any(|one| one.version == version);
    let migrations = queue.iter().filter(|one| !one.migration_type.is_down_migration());
    if !migrations.clone().any(|one| is_applied(one.version)) {
        return Ok(None);
    }
    Ok(Some(migrations.filter(|one| !is_applied(one.version)).count()))
}
