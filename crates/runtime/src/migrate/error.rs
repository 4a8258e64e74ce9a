//! Why a database cannot be used or migrated.

use std::time::Duration;

use crate::error::{causes, is_temporary};

/// The reason why a process must not use a database.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(transparent)]
    ServerTooOld(#[from] ServerTooOld),
    #[error(transparent)]
    WrongEncoding(#[from] WrongEncoding),
    #[error("the database is not migrated ({missing} migrations missing): run `millrace migrate`")]
    Behind { missing: usize },
    #[error("the database is newer than this program ({unknown} unknown migrations): run a newer millrace")]
    Ahead { unknown: usize, missing: usize },
    #[error(
        "the database is another program's: all {unknown} migrations in its table _sqlx_migrations are unknown; \
             name Millrace's own database in DATABASE_URL"
    )]
    Foreign { unknown: usize },
    #[error("migration {version} has changed since it was applied to this database")]
    Changed { version: i64 },
    #[error("migration {version} was started but not finished: see migrations/README.md")]
    Unfinished { version: i64 },
    #[error(
        "row-level security hides rows of {tables} from this user: give it BYPASSRLS, or ALTER TABLE ... DISABLE ROW \
         LEVEL SECURITY"
    )]
    HiddenRows { tables: String },
    #[error("cannot read the schema's version: {0}")]
    Unreadable(#[from] sqlx::Error),
}

/// The server is older than our statements require.
#[derive(Debug, thiserror::Error)]
#[error("the database server is PostgreSQL {}, and Millrace needs 15 or newer: DATABASE_URL must name such a server", major(*.0))]
pub struct ServerTooOld(pub(super) u32);

/// The database stores text in another encoding than our texts need.
#[derive(Debug, thiserror::Error)]
#[error(
    "the database {database} has the encoding {encoding}, and Millrace needs UTF8: create another database (CREATE DATABASE \
     millrace ENCODING 'UTF8' TEMPLATE template0) and name it in DATABASE_URL"
)]
pub struct WrongEncoding {
    pub(super) database: String,
    pub(super) encoding: String,
}

/// The major version, such as 15, of libpq's numeric form.
fn major(version: u32) -> u32 {
    version / 10_000
}

/// The database belongs to another program. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the database {database} is neither empty nor Millrace's: {reason}; nothing was changed. Give Millrace its \
     own database (CREATE DATABASE millrace) and name it in DATABASE_URL"
)]
pub struct ForeignDatabase {
    pub(super) database: String,
    pub(super) reason: String,
}

/// The reason why the migrations could not be applied. Earlier migrations stay applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The database cannot be reached, or its session ended.
    #[error("{}", causes(.0))]
    Database(#[from] sqlx::Error),
    /// The server is older than the migrations require.
    #[error(transparent)]
    ServerTooOld(#[from] ServerTooOld),
    /// The database belongs to another program.
    #[error(transparent)]
    Foreign(#[from] ForeignDatabase),
    /// The applied migrations are not those of this release.
    #[error(transparent)]
    Mismatch(SchemaError),
    /// The database has refused a statement.
    #[error("{}: the database refused the statement `{statement}`: {reason}", migration_name(*.version))]
    Refused { version: Option<i64>, statement: String, reason: String },
    /// Other transactions held a lock until `patience` ended.
    #[error(
        "migration {version} found its tables in use for {waited:.0?}: {reason}{}; earlier migrations stay applied, so \
         run `millrace migrate` again when that has ended, or with more --patience",
        oldest.as_ref().map(|one| format!("; the oldest transaction: {one}")).unwrap_or_default()
    )]
    InUse { version: i64, waited: Duration, reason: String, oldest: Option<String> },
}

impl ApplyError {
    /// Whether a retry may succeed, because the database cannot be reached or has no free session.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Database(error) if is_temporary(error))
    }
}

impl From<SchemaError> for ApplyError {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Unreadable(error) => Self::Database(error),
            mismatch => Self::Mismatch(mismatch),
        }
    }
}

/// The name of a migration in an error message; without a version, of the ledger.
fn migration_name(version: Option<i64>) -> String {
    version.map_or_else(|| "the table of migrations".to_owned(), |version| format!("migration {version}"))
}
