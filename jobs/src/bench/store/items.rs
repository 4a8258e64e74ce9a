//! SQL that adds and reads items for the benchmark.

use super::super::Bench;
use runtime::{error::Error, executor::repeatable};

/// Adds an owner whose password hash is invalid, so that no login succeeds.
pub async fn add_owner(bench: &Bench) -> Result<i64, Error> {
    let owner = sqlx::query_scalar!(
        "INSERT INTO users (email, full_name, password_hash) VALUES ('bench@example.com', 'Bench', '$argon2id$') RETURNING id",
    );
    Ok(owner.fetch_one(repeatable(&bench.pool)).await?)
}

/// Adds items of random words. `0 * n` makes the subquery depend on the row, so that each item gets different words. A
/// word is seven letters derived from a random number; smaller numbers are more frequent.
pub async fn add_items(bench: &Bench, owner: i64, count: i64) -> Result<(), Error> {
    let mut session = bench.unlimited_session().await?;
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
    .execute(&mut session)
    .await?;
    Ok(())
}

/// Returns words from the titles of some items.
pub async fn sample_words(bench: &Bench, count: i64) -> Result<Vec<String>, Error> {
    let words = sqlx::query_scalar!(
        r#"SELECT split_part(title, ' ', 2) AS "word!" FROM items WHERE price_cents % 97 = 1 ORDER BY id DESC LIMIT $1"#,
        count,
    );
    Ok(words.fetch_all(repeatable(&bench.pool)).await?)
}

/// The id of the newest item.
pub async fn newest_item(bench: &Bench) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!("SELECT id FROM items ORDER BY id DESC LIMIT 1").fetch_one(repeatable(&bench.pool)).await?)
}
