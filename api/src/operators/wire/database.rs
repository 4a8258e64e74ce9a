//! The schema of the examination of the database.

use poem_openapi::Object;

use crate::wire::{Nullable, Timestamp};

/// The result of an examination of the database.
#[derive(Object)]
pub(crate) struct DatabaseReport {
    at: Timestamp,
    /// How long it took.
    seconds: f64,
    /// The database, without the password.
    database: String,
    /// In the order of their list, each once.
    checks: Vec<DatabaseCheck>,
}

/// The result of one check.
#[derive(Object)]
struct DatabaseCheck {
    /// Such as `indexes`.
    name: String,
    /// What it looks at.
    about: String,
    /// What was measured.
    facts: Vec<String>,
    /// Worst first.
    findings: Vec<DatabaseFinding>,
    /// What the role may not see.
    hidden: Vec<String>,
    /// Why there is no result.
    not_known: Nullable<String>,
}

/// One thing that a check found.
#[derive(Object)]
struct DatabaseFinding {
    /// Names the kind of finding, such as `index-missing`.
    id: String,
    /// `note`, `warning` or `error`.
    severity: String,
    /// A sentence with the figure.
    text: String,
    /// SQL or a command that corrects it, or what to do.
    fix: String,
}
