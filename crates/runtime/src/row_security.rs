//! Row-level security, which would hide rows of our own tables from us.
//!
//! Every session sets `row_security` to off, so that a statement on such a table fails and none is with_time_limit with a part
//! of the rows. Here the tables are named at the start and by readiness, before a statement fails.

use sqlx::PgPool;

use super::pooler::repeatable;

/// The tables that hide rows from this user, comma-separated; `None` when there are none. Tables that it may not read
/// are not ours.
///
/// # Errors
/// The database cannot be asked now.
pub(super) async fn hidden(pool: &PgPool) -> sqlx::Result<Option<String>> {
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
