//! All SQL of the search; `find.rs` has the queries that rank.

mod find;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::find::{Matches, TextQuery, find, find_misspelt, find_similar_words};
use super::{analysis::Analysis, model::Document};
use runtime::{db::Pool, error::Error, executor::repeatable};

/// The size of the text that is analysed before the task yields: some milliseconds.
const YIELD_BYTES: usize = 64 << 10;

/// What to do if a document of the same version is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SameVersion {
    /// Keep the stored one: it has the same contents.
    Keep,
    /// Overwrite the stored one: an earlier release may have written it.
    Overwrite,
}

/// Writes documents, each unless a newer one is stored. At equal versions a stored removal wins.
///
/// The rows are written in the order of their ids, so that concurrent statements cannot deadlock.
pub(super) async fn upsert(pool: &Pool, documents: &[Document], same_version: SameVersion) -> Result<(), Error> {
    // Only the newest version of each: a statement cannot write a row twice.
    let mut newest: BTreeMap<i64, &Document> = BTreeMap::new();
    for document in documents {
        let known = newest.entry(document.id).or_insert(document);
        if known.version <= document.version {
            *known = document;
        }
    }
    let (mut analyses, mut bytes) = (Vec::with_capacity(newest.len()), 0);
    for document in newest.values() {
        analyses.push(Analysis::of(document));
        bytes += document.text_bytes();
        if bytes > YIELD_BYTES {
            // Lets other tasks run. Not after each document: on a busy machine that took 300 ms a page.
            tokio::task::yield_now().await;
            bytes = 0;
        }
    }
    insert_words(pool, &analyses).await?;
    let ids: Vec<i64> = newest.keys().copied().collect();
    let titles: Vec<String> = newest.values().map(|d| d.title.clone()).collect();
    let descriptions: Vec<Option<String>> = newest.values().map(|d| d.description.clone()).collect();
    sqlx::query!(
        r#"INSERT INTO item_documents AS known
                  (item_id, version, removed, title, description, price_cents, owner_id, created_at, updated_at,
                   words, title_key, analysed)
           SELECT id, version, false, title, description, price_cents, owner_id, created_at, updated_at,
                  words::tsvector, title_key, version
           FROM unnest($1::int8[], $2::int8[], $3::text[], $4::text[], $5::int8[], $6::int8[],
                       $7::timestamptz[], $8::timestamptz[], $10::text[], $11::text[])
                AS new (id, version, title, description, price_cents, owner_id, created_at, updated_at, words, title_key)
           ORDER BY id
           ON CONFLICT (item_id) DO UPDATE
           SET version = EXCLUDED.version, removed = false, title = EXCLUDED.title,
               description = EXCLUDED.description, price_cents = EXCLUDED.price_cents, owner_id = EXCLUDED.owner_id,
               created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at, written_at = now(),
               words = EXCLUDED.words, title_key = EXCLUDED.title_key, analysed = EXCLUDED.analysed
           WHERE known.version < EXCLUDED.version
                 OR ($9 AND known.version = EXCLUDED.version AND NOT known.removed)"#,
        &ids,
        &newest.values().map(|d| d.version).collect::<Vec<_>>(),
        &titles,
        &descriptions as &[Option<String>],
        &newest.values().map(|d| d.price_cents).collect::<Vec<_>>() as &[Option<i64>],
        &newest.values().map(|d| d.owner_id).collect::<Vec<_>>(),
        &newest.values().map(|d| d.created_at).collect::<Vec<_>>(),
        &newest.values().map(|d| d.updated_at).collect::<Vec<_>>(),
        same_version == SameVersion::Overwrite,
        &analyses.iter().map(Analysis::vector).collect::<Vec<_>>(),
        &analyses.iter().map(|analysis| analysis.title_key.clone()).collect::<Vec<_>>(),
    )
    .execute(repeatable(pool))
    .await?;
    Ok(())
}

/// Stores the words of documents, for the correction of misspelt queries. A word stays when no document contains it any
/// more; it then finds nothing.
///
/// A correlated subquery looks each word up. A join was planned once, when the table was still empty. It then compared
/// each of 3,000 words with all known words, for more than 5 s.
async fn insert_words(pool: &Pool, analyses: &[Analysis]) -> Result<(), Error> {
    let words: BTreeSet<&str> = analyses.iter().flat_map(Analysis::vocabulary).collect();
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    sqlx::query!(
        r#"INSERT INTO item_words (word, shapes)
           SELECT word, ARRAY[word] || ARRAY(SELECT overlay(word placing '' from place for 1)
                                             FROM generate_series(1, length(word)) AS place)
           FROM unnest($1::text[]) AS found (word)
           WHERE (SELECT true FROM item_words AS known WHERE known.word = found.word) IS NULL
           ORDER BY word COLLATE "C"
           ON CONFLICT DO NOTHING"#,
        &words,
    )
    .execute(repeatable(pool))
    .await?;
    Ok(())
}

/// Removes a document, unless a newer one is stored. Its version stays as a tombstone.
pub(super) async fn remove(pool: &Pool, id: i64, version: i64) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO item_documents AS known (item_id, version, removed, title, owner_id, created_at, updated_at)
         VALUES ($1, $2, true, '', 0, now(), now())
         ON CONFLICT (item_id) DO UPDATE
         SET version = EXCLUDED.version, removed = true, title = '', description = NULL, price_cents = NULL,
             words = '', title_key = '', written_at = now()
         WHERE known.version <= EXCLUDED.version",
        id,
        version,
    )
    .execute(repeatable(pool))
    .await?;
    Ok(())
}

/// A page of items as documents, by id.
pub(super) async fn items_after(pool: &Pool, id: i64, limit: i64) -> Result<Vec<Document>, Error> {
    let documents = sqlx::query_as!(
        Document,
        "SELECT id, version, title, description, price_cents, owner_id, created_at, updated_at
         FROM items WHERE id > $1 ORDER BY id LIMIT $2",
        id,
        limit,
    )
    .fetch_all(repeatable(pool))
    .await?;
    Ok(documents)
}

/// A page of the documents whose words were computed by an earlier release, by id.
pub(super) async fn stale_after(pool: &Pool, id: i64, limit: i64) -> Result<Vec<Document>, Error> {
    let documents = sqlx::query_as!(
        Document,
        "SELECT item_id AS id, version, title, description, price_cents, owner_id, created_at, updated_at
         FROM item_documents WHERE analysed < version AND NOT removed AND item_id > $1 ORDER BY item_id LIMIT $2",
        id,
        limit,
    )
    .fetch_all(repeatable(pool))
    .await?;
    Ok(documents)
}

/// Whether an earlier release has computed the words of any document.
pub(super) async fn has_stale_documents(pool: &Pool) -> Result<bool, Error> {
    let stale = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM item_documents WHERE analysed < version AND NOT removed) AS "stale!""#
    );
    Ok(stale.fetch_one(repeatable(pool)).await?)
}

/// The approximate number of items, from the statistics of the planner.
pub(super) async fn items_estimate(pool: &Pool) -> Result<i64, Error> {
    let estimate = sqlx::query_scalar!(
        r#"SELECT greatest(reltuples, 0)::int8 AS "estimate!" FROM pg_class WHERE oid = 'items'::regclass"#
    );
    Ok(estimate.fetch_one(repeatable(pool)).await?)
}

/// Those of these ids that have no item.
pub(super) async fn find_missing_items(pool: &Pool, ids: &[i64]) -> Result<Vec<i64>, Error> {
    let missing = sqlx::query_scalar!(
        r#"SELECT asked.id AS "id!" FROM unnest($1::int8[]) AS asked (id)
           WHERE NOT EXISTS (SELECT FROM items WHERE items.id = asked.id)"#,
        ids
    );
    Ok(missing.fetch_all(repeatable(pool)).await?)
}

/// A page of the ids and versions of all documents, by id.
pub(super) async fn documents_after(pool: &Pool, id: i64, limit: i64) -> Result<Vec<(i64, i64)>, Error> {
    let rows = sqlx::query!(
        "SELECT item_id, version FROM item_documents WHERE item_id > $1 AND NOT removed ORDER BY item_id LIMIT $2",
        id,
        limit,
    )
    .fetch_all(repeatable(pool))
    .await?;
    Ok(rows.into_iter().map(|row| (row.item_id, row.version)).collect())
}

/// Deletes the tombstones that are older than a day: no job that read the item before its removal still runs.
pub(super) async fn delete_old_tombstones(pool: &Pool) -> Result<u64, Error> {
    let deleted = sqlx::query!("DELETE FROM item_documents WHERE removed AND written_at < now() - interval '1 day'");
    Ok(deleted.execute(repeatable(pool)).await?.rows_affected())
}
