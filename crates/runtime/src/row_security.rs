//! Check for row-level security, which would hide rows of our own tables.
//!
//! Every session sets `row_security` to off. A statement on such a table then fails instead of returning only part of
//! its rows. This check names the tables at start and in readiness, before a statement fails.

use super::db::Pool;
use super::executor::repeatable;

/// The tables that hide rows from this user, comma-separated; `None` if there are none. A table that the user may not
/// read is not ours.
///
/// # Errors
/// When the query fails.
pub(super) async fn tables_with_hidden_rows(pool: &Pool) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"SELECT string_agg(class.oid::regclass::text, ', ' ORDER BY class.oid::regclass::text)
           FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = relnamespace
           WHERE nspname IN ('public', 'apalis') AND relkind IN ('r', 'p') AND relrowsecurity
             AND has_schema_privilege(namespace.oid, 'USAGE') AND has_table_privilege(class.oid, 'SELECT')
             AND row_security_active(class.oid)"#
    )
    .fetch_one(repeatable(pool))
    .await
}
