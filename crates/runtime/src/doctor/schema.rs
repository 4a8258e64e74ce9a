//! Checks of the schema: migrations, objects and indexes, compared with this release.

use sqlx::{Connection, Result};

use super::{
    context::Context,
    finding::Outcome,
    schema_list::{self, OBJECTS},
    store::schema::{self as sql, SchemaObject},
    words::{about, bytes},
};
use crate::{
    db::Database,
    executor::on_session,
    migrate::{self, SchemaError},
    settings,
};

/// The kinds of objects that belong to a table. Others of this kind than those of the release change what it does.
const PARTS: [&str; 3] = ["column", "constraint", "trigger"];

/// Lists the schema of a database in the form of `schema.txt`.
///
/// # Errors
/// When the database cannot be read.
pub async fn schema_list(database: &Database) -> Result<String> {
    let mut session = database.connect("schema").await?;
    Ok(schema_list::text(&sql::objects(on_session(&mut session, database)).await?))
}

/// The migrations that a database lacks.
async fn missing_migrations(context: &mut Context) -> Result<Vec<i64>, SchemaError> {
    let mut transaction = if context.database.has_sessions() {
        context.session.begin().await?
    } else {
        context.session.begin_with(settings::begin_statement(None)).await?
    };
    let missing = migrate::missing(&mut transaction).await;
    transaction.rollback().await?;
    missing
}

/// Whether the database is migrated to this release.
pub(super) async fn migrations(context: &mut Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    const READ: &str = "see migrations/README.md";
    match missing_migrations(context).await {
        Ok(missing) if missing.is_empty() => outcome.fact("all migrations of this release are applied, and no other"),
        Ok(missing) => {
            let first = missing.first().copied().unwrap_or_default();
            let text = format!("{} migrations are missing, first {first}: api and worker do not start", missing.len());
            outcome.error("migration-missing", text, "millrace migrate");
        }
        Err(SchemaError::Unreadable(error)) => return Err(error),
        Err(error @ SchemaError::Ahead { missing: 0, .. }) => {
            let text = format!("{error}; running processes go on, and no process of this release starts");
            outcome.warn(
                "migration-unknown",
                text,
                "start the newer release, or undo its migrations: migrations/README.md",
            );
        }
        Err(error @ SchemaError::Ahead { .. }) => outcome.error("migration-unknown", error.to_string(), READ),
        Err(error @ SchemaError::Changed { .. }) => outcome.error("migration-changed", error.to_string(), READ),
        Err(error @ SchemaError::Unfinished { .. }) => outcome.error("migration-unfinished", error.to_string(), READ),
        Err(error) => outcome.error("migration-foreign", error.to_string(), READ),
    }
    Ok(outcome)
}

/// Reads the objects if the database has the migrations of this release. Otherwise each difference would be found twice.
async fn comparable(context: &mut Context, outcome: &mut Outcome) -> Result<Option<Vec<SchemaObject>>> {
    match missing_migrations(context).await {
        Ok(missing) if missing.is_empty() => {}
        Err(SchemaError::Unreadable(error)) => return Err(error),
        Err(SchemaError::Changed { .. }) => {}
        Ok(_) | Err(_) => {
            outcome.fact("not compared: the migrations are not those of this release");
            return Ok(None);
        }
    }
    sql::objects(context.executor()).await.map(Some)
}

/// Tables, columns, constraints, triggers and functions, compared with this release.
pub(super) async fn objects(context: &mut Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let Some(found) = comparable(context, &mut outcome).await? else { return Ok(outcome) };
    let expected: Vec<&SchemaObject> = OBJECTS.iter().filter(|object| object.kind != "index").collect();
    let gone = missing_tables(&found);
    for object in &expected {
        let belongs = |table: &&str| object.name.strip_prefix(*table).is_some_and(|rest| rest.starts_with('.'));
        match find(&found, object) {
            // The table itself is named.
            None if object.kind != "table" && gone.iter().any(belongs) => {}
            None => outcome.error(
                "schema-missing",
                format!("the {} {} is missing", object.kind, object.name),
                create(object),
            ),
            Some(other) if other.definition != object.definition => {
                outcome.error("schema-changed", difference(object, other), change(object));
            }
            Some(_) => {}
        }
    }
    for object in
        found.iter().filter(|object| PARTS.contains(&object.kind.as_str()) && find(&OBJECTS, object).is_none())
    {
        let Some((table, name)) = object.name.rsplit_once('.') else { continue };
        if schema_list::tables().any(|ours| ours == table) {
            let text = format!("the {} {name} of {table} is not of this release: {}", object.kind, object.definition);
            let fix = match object.kind.as_str() {
                "trigger" => format!("DROP TRIGGER {name} ON {table};"),
                kind => format!("ALTER TABLE {table} DROP {} {name};", kind.to_uppercase()),
            };
            outcome.warn("schema-extra", text, fix);
        }
    }
    outcome.fact(format!("{} objects of this release compared", expected.len()));
    Ok(outcome)
}

/// The tables of this release that a database does not have.
fn missing_tables(found: &[SchemaObject]) -> Vec<&'static str> {
    let has = |table: &str| found.iter().any(|object| object.kind == "table" && object.name == table);
    schema_list::tables().filter(|table| !has(table)).collect()
}

/// Finds the object of the same kind and name.
fn find<'o>(objects: &'o [SchemaObject], like: &SchemaObject) -> Option<&'o SchemaObject> {
    objects.iter().find(|object| object.kind == like.kind && object.name == like.name)
}

/// How an object differs from that of this release.
fn difference(object: &SchemaObject, found: &SchemaObject) -> String {
    let SchemaObject { kind, name, definition } = object;
    format!("the {kind} {name} is `{}`, and this release expects `{definition}`", found.definition)
}

/// The statement that creates a missing object, or where to find it.
fn create(object: &SchemaObject) -> String {
    let SchemaObject { kind, name, definition } = object;
    match (kind.as_str(), name.rsplit_once('.')) {
        ("column", Some((table, column))) => format!("ALTER TABLE {table} ADD COLUMN {column} {definition};"),
        ("constraint", Some((table, constraint))) => {
            format!("ALTER TABLE {table} ADD CONSTRAINT {constraint} {definition};")
        }
        ("trigger", _) => format!("{definition};"),
        ("index", _) => format!("{};", definition.replacen("INDEX ", "INDEX CONCURRENTLY ", 1)),
        _ => format!("the migration that creates it: grep -rn {} migrations/", name.rsplit('.').next().unwrap_or(name)),
    }
}

/// The statement that corrects a changed object, or where to find it.
fn change(object: &SchemaObject) -> String {
    let SchemaObject { kind, name, .. } = object;
    match (kind.as_str(), name.rsplit_once('.')) {
        ("table", _) => format!("ALTER TABLE {name} SET LOGGED;"),
        ("constraint", Some((table, constraint))) => {
            format!("ALTER TABLE {table} DROP CONSTRAINT {constraint}; {}", create(object))
        }
        ("index", _) => format!("DROP INDEX CONCURRENTLY {name}; {}", create(object)),
        ("column", Some((table, column))) => {
            format!("ALTER TABLE {table} ALTER COLUMN {column} …, after a look at who changed it and why")
        }
        _ => format!("the migration that creates it: grep -rn {} migrations/", name.rsplit('.').next().unwrap_or(name)),
    }
}

/// Missing, changed, invalid and unused indexes.
pub(super) async fn indexes(context: &mut Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let Some(found) = comparable(context, &mut outcome).await? else { return Ok(outcome) };
    let tables: Vec<String> = schema_list::tables().map(str::to_owned).collect();
    let states = sql::indexes(context.executor(), &tables).await?;
    let gone = missing_tables(&found);
    let expected: Vec<&SchemaObject> = OBJECTS.iter().filter(|object| object.kind == "index").collect();
    for object in &expected {
        match find(&found, object) {
            None if gone.iter().any(|table| object.definition.contains(&format!(" ON {table} "))) => {}
            None => {
                let text =
                    format!("the index {} is missing: statements that need it read the whole table", object.name);
                outcome.error("index-missing", text, create(object));
            }
            Some(other) if other.definition != object.definition => {
                outcome.error("index-changed", difference(object, other), change(object));
            }
            Some(_) => {}
        }
    }
    for state in &states {
        let name = &state.name;
        let is_ours = expected.iter().any(|object| object.name == *name);
        // An index of a constraint is not in the list of indexes.
        let is_extra = !is_ours && found.iter().any(|object| object.kind == "index" && object.name == *name);
        if state.is_being_built {
            outcome.fact(format!("the index {name} is being built"));
        } else if !state.is_valid {
            let text = format!("the index {name} is invalid: it costs each write and serves no statement");
            let fix = if is_extra {
                format!("DROP INDEX CONCURRENTLY {name};")
            } else {
                format!("REINDEX INDEX CONCURRENTLY {name};")
            };
            outcome.error("index-invalid", text, fix);
        } else if is_extra && state.scans == 0 {
            let text = format!(
                "the index {name} ({}) is not of this release, and was never used: it costs each write",
                bytes(state.bytes)
            );
            outcome.warn("index-unused", text, format!("DROP INDEX CONCURRENTLY {name};"));
        } else if is_extra {
            #[allow(clippy::cast_precision_loss, reason = "a figure in words")]
            let scans = about(state.scans as f64);
            outcome.fact(format!("the index {name} is not of this release; it was used {scans} times"));
        }
    }
    outcome.fact(format!("{} indexes of this release compared, {} in all", expected.len(), states.len()));
    Ok(outcome)
}
