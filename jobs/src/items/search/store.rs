//! All SQL of the search.

mod find;

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgPool;
use time::OffsetDateTime;

pub use self::find::{Found, Sought, find, find_misspelt, resembling};
use super::{analysis::Analysis, model::Document};
use crate::{boot::pooler::repeatable, error::Error};

/// Text that is analysed without a pause: some milliseconds.
const TURN: usize = 64 << 10;

/// Whether a document of the same version is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equal {
    /// It is what is there already.
    Keep,
    /// What is there may have been made by an older program.
    Rewrite,
}

/// A document as read.
struct Row {
    id: i64,
    version: i64,
    title: String,
    description: Option<String>,
    price_cents: Option<i64>,
    owner_id: i64,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl From<Row> for Document {
    fn from(row: Row) -> Self {
        let Row { id, version, title, description, price_cents, owner_id, created_at, updated_at } = row;
        Self { id, version, title, description, price_cents, owner_id, created_at, updated_at }
    }
}

/// Writes documents, each unless a newer one is there; a removal is newer than a document of its version.
///
/// In the order of their ids, so that two such statements wait for each other and never in a circle.
pub async fn put(pool: &PgPool, documents: &[Document], equal: Equal) -> Result<(), Error> {
    // One version of each: a statement cannot write a row twice.
    let mut newest: BTreeMap<i64, &Document> = BTreeMap::new();
    for document in documents {
        let kept = newest.entry(document.id).or_insert(document);
        if kept.version <= document.version {
            *kept = document;
        }
    }
    let (mut analyses, mut bytes) = (Vec::with_capacity(newest.len()), 0);
    for document in newest.values() {
        analyses.push(Analysis::of(document));
        bytes += document.title.len() + document.description.as_ref().map_or(0, String::len);
        if bytes > TURN {
            // Others get their turn. Not after each document: on a busy machine that took 300 ms a page.
            tokio::task::yield_now().await;
            bytes = 0;
        }
    }
    remember(pool, &analyses).await?;
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
        equal == Equal::Rewrite,
        &analyses.iter().map(Analysis::vector).collect::<Vec<_>>(),
        &analyses.iter().map(|analysis| analysis.title_key.clone()).collect::<Vec<_>>(),
    )
    .execute(repeatable(pool))
    .await?;
    Ok(())
}

/// Keeps the words of documents to correct searches by. A word that is in no document any more finds nothing, and stays.
///
/// Each word is looked up by itself: a join is planned once, when the table may still be empty, and then compared each
/// of 3,000 words with all that were known, for more than 5 s.
async fn remember(pool: &PgPool, analyses: &[Analysis]) -> Result<(), Error> {
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

/// Removes a document, unless a newer one is there; its version stays.
pub async fn remove(pool: &PgPool, id: i64, version: i64) -> Result<(), Error> {
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
pub async fn items_after(pool: &PgPool, id: i64, limit: i64) -> Result<Vec<Document>, Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, version, title, description, price_cents, owner_id, created_at, updated_at
         FROM items WHERE id > $1 ORDER BY id LIMIT $2",
        id,
        limit,
    )
    .fetch_all(repeatable(pool))
    .await?;
    Ok(rows.into_iter().map(Document::from).collect())
}

/// A page of the documents whose words an earlier release has computed, by id.
pub async fn stale_after(pool: &PgPool, id: i64, limit: i64) -> Result<Vec<Document>, Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT item_id AS id, version, title, description, price_cents, owner_id, created_at, updated_at
         FROM item_documents WHERE analysed < version AND NOT removed AND item_id > $1 ORDER BY item_id LIMIT $2",
        id,
        limit,
    )
    .fetch_all(repeatable(pool))
    .await?;
    Ok(rows.into_iter().map(Document::from).collect())
}

/// Whether there is such a document.
pub async fn has_stale(pool: &PgPool) -> Result<bool, Error> {
    let stale = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM item_documents WHERE analysed < version AND NOT removed) AS "stale!""#
    );
    Ok(stale.fetch_one(repeatable(pool)).await?)
}

/// About how many items there are.
pub async fn items_estimate(pool: &PgPool) -> Result<i64, Error> {
    let estimate = sqlx::query_scalar!(
        r#"SELECT greatest(reltuples, 0)::int8 AS "estimate!" FROM pg_class WHERE oid = 'items'::regclass"#
    );
    Ok(estimate.fetch_one(repeatable(pool)).await?)
}

/// Those of these ids that no item has.
pub async fn gone(pool: &PgPool, ids: &[i64]) -> Result<Vec<i64>, Error> {
    let gone = sqlx::query_scalar!(
        r#"SELECT asked.id AS "id!" FROM unnest($1::int8[]) AS asked (id)
           WHERE NOT EXISTS (SELECT FROM items WHERE items.id = asked.id)"#,
        ids
    );
    Ok(gone.fetch_all(repeatable(pool)).await?)
}

/// A page of the ids and versions of the documents that are there, by id.
pub async fn documents_after(pool: &PgPool, id: i64, limit: i64) -> Result<Vec<(i64, i64)>, Error> {
    let rows = sqlx::query!(
        "SELECT item_id, version FROM item_documents WHERE item_id > $1 AND NOT removed ORDER BY item_id LIMIT $2",
        id,
        limit,
    )
    .fetch_all(repeatable(pool))
    .await?;
    Ok(rows.into_iter().map(|row| (row.item_id, row.version)).collect())
}

/// Forgets what was removed more than a day ago: no job that read the item before is still on its way.
pub async fn forget_removed(pool: &PgPool) -> Result<u64, Error> {
    let forgotten = sqlx::query!("DELETE FROM item_documents WHERE removed AND written_at < now() - interval '1 day'");
    Ok(forgotten.execute(repeatable(pool)).await?.rows_affected())
}
