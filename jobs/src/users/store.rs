//! All SQL of users.

use sqlx::PgPool;

use super::model::{Email, NewUser, Role, User, UserId};
use crate::{
    boot::pooler::{on, repeatable},
    error::Error,
};

/// Records a user, unless the address is known: the unique index decides, also between two that come at once.
pub async fn insert(pool: &PgPool, new: &NewUser, password_hash: &str) -> Result<Option<User>, Error> {
    let id = sqlx::query_scalar!(
        "INSERT INTO users (email, full_name, password_hash) VALUES ($1, $2, $3)
         ON CONFLICT (lower(email)) DO NOTHING RETURNING id",
        new.email.as_str(),
        new.full_name,
        password_hash,
    )
    .fetch_optional(on(pool))
    .await?;
    Ok(id.map(|id| User {
        id: UserId(id),
        email: new.email.to_string(),
        full_name: new.full_name.clone(),
        role: Role::default(),
    }))
}

/// The user with this address, however it is capitalised, and the hash of the password.
pub async fn find_by_email(pool: &PgPool, email: &Email) -> Result<Option<(User, String)>, Error> {
    let row = sqlx::query!(
        "SELECT id, email, full_name, password_hash, role FROM users WHERE lower(email) = lower($1)",
        email.as_str(),
    )
    .fetch_optional(repeatable(pool))
    .await?;
    row.map(|row| Ok((user(row.id, row.email, row.full_name, &row.role)?, row.password_hash))).transpose()
}

/// The user with this id.
pub async fn find(pool: &PgPool, id: UserId) -> Result<Option<User>, Error> {
    let row = sqlx::query!("SELECT id, email, full_name, role FROM users WHERE id = $1", id.0)
        .fetch_optional(repeatable(pool))
        .await?;
    row.map(|row| user(row.id, row.email, row.full_name, &row.role)).transpose()
}

fn user(id: i64, email: String, full_name: String, role: &str) -> Result<User, Error> {
    // The table's own constraint holds it; a row that breaks it was written around us.
    let role = Role::parse(role).ok_or_else(|| Error::Internal(format!("user {id}: stored role is not readable")))?;
    Ok(User { id: UserId(id), email, full_name, role })
}
