//! The check of the database's encoding. In every other encoding than UTF8 some texts of senders cannot be stored, or are
//! counted and folded as bytes.

use sqlx::PgConnection;

use super::error::{SchemaError, WrongEncoding};

/// Checks that the database stores text as UTF8.
///
/// # Errors
/// When it has another encoding, or cannot be read.
pub(super) async fn check_encoding(connection: &mut PgConnection) -> Result<(), SchemaError> {
    const SQL: &str = "SELECT pg_catalog.current_database()::text, pg_catalog.current_setting('server_encoding')";
    let (database, encoding): (String, String) = sqlx::query_as(SQL).fetch_one(connection).await?;
    if encoding == "UTF8" { Ok(()) } else { Err(WrongEncoding { database, encoding }.into()) }
}
