//! SQL of users.

use super::model::{Email, NewUser, Role, User, UserId};
use runtime::{
    db::Pool,
    error::Error,
    executor::{repeatable, transactional},
};

/// Inserts a user; `None` if the address is known already. The unique indexes decide, also between concurrent inserts.
pub(super) async fn insert(pool: &Pool, new: &NewUser, password_hash: &str) -> Result<Option<User>, Error> {
    let id = sqlx::query_scalar!(
        "INSERT INTO users (email, email_key, full_name, password_hash) VALUES ($1, $2, $3, $4)
         ON CONFLICT DO NOTHING RETURNING id",
        new.email.as_str(),
        new.email.key(),
        new.full_name,
        password_hash,
    )
    .fetch_optional(transactional(pool))
    .await?;
    Ok(id.map(|id| User {
        id: UserId(id),
        email: new.email.to_string(),
        full_name: new.full_name.clone(),
        role: Role::default(),
    }))
}

/// The user with this address in any spelling, and the password hash.
///
/// Users of an earlier release have no key; that release compared addresses by `lower()`. Such a user's key is either
/// not computed yet or belongs to another user. A match by `lower()` therefore comes first.
pub(super) async fn find_by_email(pool: &Pool, email: &Email) -> Result<Option<(User, String)>, Error> {
    let row = sqlx::query!(
        "SELECT id, email, full_name, password_hash, role FROM users
         WHERE email_key = $1 OR (email_key IS NULL AND lower(email) = lower($2))
         ORDER BY email_key NULLS FIRST LIMIT 1",
        email.key(),
        email.as_str(),
    )
    .fetch_optional(repeatable(pool))
    .await?;
    row.map(|row| Ok((user(row.id, row.email, row.full_name, &row.role)?, row.password_hash))).transpose()
}

/// Replaces a password hash, unless it has changed meanwhile.
pub(super) async fn replace_hash(pool: &Pool, id: UserId, old: &str, new: &str) -> Result<(), Error> {
    sqlx::query!("UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2", id.0, old, new)
        .execute(transactional(pool))
        .await?;
    Ok(())
}

/// A page of users without a key: their ids and addresses, after `id`, by id.
pub(super) async fn without_key(pool: &Pool, id: i64, limit: i64) -> Result<Vec<(i64, String)>, Error> {
    let rows =
        sqlx::query!("SELECT id, email FROM users WHERE email_key IS NULL AND id > $1 ORDER BY id LIMIT $2", id, limit)
            .fetch_all(transactional(pool))
            .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.email)).collect())
}

/// Sets the key of each user, unless another user has the same key. The keys must be distinct.
pub(super) async fn add_keys(pool: &Pool, ids: &[i64], keys: &[String]) -> Result<u64, Error> {
    let added = sqlx::query!(
        "UPDATE users SET email_key = new.key FROM unnest($1::int8[], $2::text[]) AS new (id, key)
         WHERE users.id = new.id AND users.email_key IS NULL
           AND NOT EXISTS (SELECT FROM users AS other WHERE other.email_key = new.key)",
        ids,
        keys,
    );
    Ok(added.execute(transactional(pool)).await?.rows_affected())
}

/// The user with this id.
pub(super) async fn find(pool: &Pool, id: UserId) -> Result<Option<User>, Error> {
    let row = sqlx::query!("SELECT id, email, full_name, role FROM users WHERE id = $1", id.0)
        .fetch_optional(repeatable(pool))
        .await?;
    row.map(|row| user(row.id, row.email, row.full_name, &row.role)).transpose()
}

fn user(id: i64, email: String, full_name: String, role: &str) -> Result<User, Error> {
    // The table's constraint allows only known roles.
    let role = role.parse().map_err(|_| Error::Internal(format!("user {id}: stored role is not readable")))?;
    Ok(User { id: UserId(id), email, full_name, role })
}
