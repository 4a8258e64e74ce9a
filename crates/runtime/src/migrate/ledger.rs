//! Migration ledgers: reads the tables of applied migrations, and refuses the database of another program before any
//! write.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection, migrate::Migrator};

use super::{
    encoding::check_encoding,
    error::{ApplyError, ForeignDatabase, SchemaError},
};

/// A row of a ledger: a migration that was applied, or started.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct AppliedMigration {
    pub(super) version: i64,
    description: String,
    checksum: Vec<u8>,
    success: bool,
}

/// The rows of a table of migrations; `None` if the table does not exist.
pub(super) type Ledger = Option<Vec<AppliedMigration>>;

/// Reads both ledgers, in the order of the migrators, and checks that the database stores UTF8 and is empty or ours.
///
/// # Errors
/// When the database has another encoding, belongs to another program, or cannot be read.
pub(super) async fn read_ledgers(
    connection: &mut PgConnection,
    apalis: &Migrator,
    ours: &Migrator,
) -> Result<[Ledger; 2], ApplyError> {
    check_encoding(connection).await?;
    // First, because within a transaction nothing can be read after an error.
    let database: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut *connection).await?;
    let ledgers = [read_ledger(connection, apalis).await, read_ledger(connection, ours).await];
    let reason = match &ledgers {
        [Err(error), _] | [_, Err(error)] if is_another_table(error) => {
            Some("its table _sqlx_migrations is not one of sqlx".to_owned())
        }
        [Ok(theirs), Ok(own)] => foreign_reason(connection, (theirs, apalis), (own, ours)).await?,
        _ => None,
    };
    if let Some(reason) = reason {
        return Err(ForeignDatabase { database, reason }.into());
    }
    let [theirs, own] = ledgers;
    Ok([theirs?, own?])
}

/// Reads one ledger. It needs no right to create the table.
pub(super) async fn read_ledger(connection: &mut PgConnection, migrator: &Migrator) -> sqlx::Result<Ledger> {
    let table = &*migrator.table_name;
    let (schema, name) = table.split_once('.').unwrap_or(("public", table));
    // Every role may read the catalogue. `to_regclass` would fail without the right to use the schema.
    const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                          WHERE n.nspname = $1 AND c.relname = $2)";
    if !sqlx::query_scalar(EXISTS).bind(schema).bind(name).fetch_one(&mut *connection).await? {
        return Ok(None);
    }
    let rows = AssertSqlSafe(format!("SELECT version, description, checksum, success FROM {table} ORDER BY version"));
    sqlx::query_as(rows).fetch_all(connection).await.map(Some)
}

/// Whether another tool created the table, which then has other columns or column types.
pub(super) fn is_another_table(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some("42703") || matches!(error, sqlx::Error::ColumnDecode { .. })
}

/// The reason if the database belongs to another program; `None` if it is empty or ours.
async fn foreign_reason(
    connection: &mut PgConnection,
    (theirs, apalis): (&Ledger, &Migrator),
    (own, ours): (&Ledger, &Migrator),
) -> sqlx::Result<Option<String>> {
    let rows = own.as_deref().unwrap_or_default();
    if rows.iter().any(|row| ours.version_exists(row.version)) {
        return Ok(None);
    }
    if let Some(first) = rows.first() {
        return Ok(Some(describe_foreign_ledger("public._sqlx_migrations", rows.len(), first)));
    }
    let engine = theirs.as_deref().unwrap_or_default();
    if let Some(first) = engine.iter().find(|row| !apalis.version_exists(row.version)) {
        return Ok(Some(describe_foreign_ledger("apalis._sqlx_migrations", engine.len(), first)));
    }
    // An interrupted first `migrate` leaves the empty tables of apalis.
    if !engine.is_empty() && own.is_none() && has_jobs(connection).await? {
        return Ok(Some("its schema apalis holds the jobs of another program".to_owned()));
    }
    let objects: Vec<String> = sqlx::query_scalar(OBJECTS).bind(!engine.is_empty()).fetch_all(connection).await?;
    Ok((!objects.is_empty()).then(|| {
        const MAX_LISTED: usize = 5;
        let listed = objects[..objects.len().min(MAX_LISTED)].join(", ");
        let more = objects.len().saturating_sub(MAX_LISTED);
        if more > 0 { format!("it has {listed} and {more} more") } else { format!("it has {listed}") }
    }))
}

/// Describes a ledger with migrations of another program.
fn describe_foreign_ledger(table: &str, count: usize, first: &AppliedMigration) -> String {
    let AppliedMigration { version, description, .. } = first;
    format!("its table {table} lists {count} migrations of another program, such as {version} {description:?}")
}

/// Whether the table of jobs exists and has rows.
async fn has_jobs(connection: &mut PgConnection) -> sqlx::Result<bool> {
    const TABLE: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                         WHERE n.nspname = 'apalis' AND c.relname = 'jobs')";
    Ok(sqlx::query_scalar(TABLE).fetch_one(&mut *connection).await?
        && sqlx::query_scalar("SELECT EXISTS (SELECT FROM apalis.jobs)").fetch_one(connection).await?)
}

/// The objects of a database: the tables of every schema first, then the views, sequences, functions and types of `public`
/// and `apalis`. It leaves out ledgers, objects of extensions or of the system, and, if $1 is true, the schema
/// `apalis` and the function that apalis creates in `public` before it moves it there.
const OBJECTS: &str = "
    WITH objects (place, kind, schema, name, class, id) AS (
        SELECT CASE WHEN relkind IN ('r', 'p', 'f') THEN 1 ELSE 2 END,
               CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' ELSE 'table' END,
               relnamespace, relname, 'pg_catalog.pg_class'::pg_catalog.regclass, oid
        FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
        UNION ALL
        SELECT 3, 'function', pronamespace, proname, 'pg_catalog.pg_proc'::pg_catalog.regclass, oid FROM pg_catalog.pg_proc
        UNION ALL
        SELECT 4, 'type', typnamespace, typname, 'pg_catalog.pg_type'::pg_catalog.regclass, oid
        FROM pg_catalog.pg_type WHERE typtype IN ('e', 'd')
    )
    SELECT pg_catalog.format('the %s %s.%s', kind, nspname, name)
    FROM objects JOIN pg_catalog.pg_namespace AS n ON n.oid = schema
    WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
      AND (place = 1 OR nspname IN ('public', 'apalis'))
      AND NOT ($1 AND (nspname = 'apalis' OR kind = 'function' AND nspname = 'public' AND name = 'generate_ulid'))
      AND NOT (nspname IN ('public', 'apalis') AND name = '_sqlx_migrations')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = class AND d.objid = id AND d.deptype = 'e')
    ORDER BY place, nspname, name";

/// The versions of the migrations that a database lacks, oldest first.
///
/// # Errors
/// When a migration of the database is unknown to this release, has changed since it was applied, or is unfinished.
pub(super) fn missing(rows: &[AppliedMigration], migrator: &Migrator) -> Result<Vec<i64>, SchemaError> {
    let wanted = migrator.iter().filter(|migration| !migration.migration_type.is_down_migration());
    let mut wanted: BTreeMap<i64, &[u8]> = wanted.map(|migration| (migration.version, &*migration.checksum)).collect();
    let total = wanted.len();
    let mut unknown = 0;
    for row in rows {
        match wanted.remove(&row.version) {
            None => unknown += 1,
            Some(checksum) if checksum != row.checksum => return Err(SchemaError::Changed { version: row.version }),
            Some(_) if !row.success => return Err(SchemaError::Unfinished { version: row.version }),
            Some(_) => {}
        }
    }
    match wanted.len() {
        missing if unknown > 0 && missing == total => Err(SchemaError::Foreign { unknown }),
        missing if unknown > 0 => Err(SchemaError::Ahead { unknown, missing }),
        _ => Ok(wanted.into_keys().collect()),
    }
}
