//! SQL that adds and reads items for the benchmark.

use sqlx::{PgConnection, Result};

use super::unlimited;
use runtime::{db::Pool, executor::repeatable};

/// Adds an owner whose password hash is invalid, so that no login succeeds.
pub async fn add_owner(pool: &Pool) -> Result<i64> {
    let owner = sqlx::query_scalar!(
        "INSERT INTO users (email, full_name, password_hash) VALUES ('bench@example.com', 'Bench', '$argon2id$') RETURNING id",
    );
    owner.fetch_one(repeatable(pool)).await
}

/// Adds items of random words. `0 * n` makes the subquery depend on the row, so that each item gets different words. A
/// word is seven letters derived from a random number; smaller numbers are more frequent.
pub async fn add_items(session: &mut PgConnection, owner: i64, count: i64) -> Result<()> {
    unlimited(session).await?;
    sqlx::query!(
        "INSERT INTO items (owner_id, title, description, price_cents)
         SELECT $1, array_to_string(words[1:3], ' '), array_to_string(words[4:15], ' '), n
         FROM generate_series(1, $2::bigint) AS n
         CROSS JOIN LATERAL (
             SELECT array_agg(substr(translate(md5(floor(5000 * power(random(), 3))::text),
                                               '0123456789', 'ghijklmnop'), 1, 7)) AS words
             FROM generate_series(1, 15 + 0 * n)
         ) AS texts",
        owner,
        count,
    )
    .execute(session)
    .await?;
    Ok(())
}

/// Returns words from the titles of some items.
pub async fn sample_words(pool: &Pool, count: i64) -> Result<Vec<String>> {
    let words = sqlx::query_scalar!(
        r#"SELECT split_part(title, ' ', 2) AS "word!" FROM items WHERE price_cents % 97 = 1 ORDER BY id DESC LIMIT $1"#,
        count,
    );
    words.fetch_all(repeatable(pool)).await
}

/// The id of the newest item.
pub async fn newest_item(pool: &Pool) -> Result<i64> {
    sqlx::query_scalar!("SELECT id FROM items ORDER BY id DESC LIMIT 1").fetch_one(repeatable(pool)).await
}
