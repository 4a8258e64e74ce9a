//! What every check gets: a session, and the limits from which on something is a finding.

use sqlx::PgConnection;

use super::finding::Limits;
use crate::{
    db::Database,
    executor::{StatementExecutor, on_session},
};

/// A session of the examination, its database, and the limits.
pub(super) struct Context {
    pub session: PgConnection,
    pub database: Database,
    pub limits: Limits,
}

impl Context {
    /// The executor of one statement.
    pub(super) fn executor(&mut self) -> StatementExecutor<'_> {
        on_session(&mut self.session, &self.database)
    }
}
